"""A small agent under MLflow Tracing, as a user writes it: only the tracking URI names tracelake."""

import sys
import time

import mlflow
from mlflow.entities import SpanType

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(sys.argv[2])


@mlflow.trace(span_type=SpanType.RETRIEVER)
def search_runbooks(symptom: str) -> list[dict]:
    time.sleep(0.02)
    return [
        {
            "page_content": f"If you see {symptom}, restart the ingester.",
            "metadata": {"doc_uri": "runbook.md"},
        }
    ]


@mlflow.trace(span_type=SpanType.TOOL)
def restart(service: str) -> str:
    if service == "billing":
        raise PermissionError("not allowed to restart billing")
    time.sleep(0.01)
    return f"{service} restarted"


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
def chat(messages: list[dict]) -> dict:
    time.sleep(0.05)
    answer = {"choices": [{"message": {"role": "assistant", "content": "Restart it."}}]}
    tokens = {"input_tokens": 180 + len(str(messages)), "output_tokens": 12}
    tokens["total_tokens"] = sum(tokens.values())
    span = mlflow.get_current_active_span()
    span.set_attribute("mlflow.llm.model", "demo-model")
    span.set_attribute("mlflow.chat.tokenUsage", tokens)
    return answer


@mlflow.trace(name="health_monitor", span_type=SpanType.AGENT)
def health_monitor(service: str, symptom: str) -> str:
    mlflow.update_current_trace(
        metadata={"mlflow.trace.session": "on-call-7", "mlflow.trace.user": "alex"}
    )
    runbook = search_runbooks(symptom)
    chat([{"role": "user", "content": f"{service}: {symptom}. {runbook[0]['page_content']}"}])
    return restart(service)


for service, symptom in [("ingester", "lag"), ("search", "slow answers"), ("billing", "timeouts")]:
    try:
        health_monitor(service, symptom)
    except PermissionError:
        pass

mlflow.flush_trace_async_logging()
print(
    f"    MLflow {mlflow.__version__}: 3 traces of an agent, nested, with an LLM call; one of them failed"
)
