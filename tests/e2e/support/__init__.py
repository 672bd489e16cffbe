"""What the end-to-end tests share: the service as a process, OTLP, the truth, the readers."""
