"""An unchanged MLflow client, as a user writes it. Run as: log_traces.py TRACKING_URI.

Prints one JSON document: the trace ids, and the moment at which the client's flush returned.
"""

import json
import sys
import time

import mlflow
from mlflow.entities import SpanType

mlflow.set_tracking_uri(sys.argv[1])
experiment = mlflow.set_experiment("/Shared/health_monitor_agent/production")


@mlflow.trace(span_type=SpanType.RETRIEVER)
def search(question: str) -> list[dict]:
    return [{"page_content": f"about {question}", "metadata": {"doc_uri": "a.md"}, "id": "1"}]


@mlflow.trace(span_type=SpanType.TOOL)
def divide(a: int, b: int) -> float:
    return a / b


def ask_model(question: str) -> str:
    with mlflow.start_span(name="model", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs({"messages": [{"role": "user", "content": question}]})
        span.set_attribute("mlflow.llm.model", "gpt-test")
        span.set_attribute(
            "mlflow.chat.tokenUsage", {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
        )
        span.set_outputs(
            {"choices": [{"message": {"role": "assistant", "content": "42 \U0001f4a1"}}]}
        )
    return "42"


@mlflow.trace(name="agent", span_type=SpanType.AGENT)
def agent(question: str, fail: bool = False) -> str:
    mlflow.update_current_trace(
        tags={"team": "search"},
        metadata={"mlflow.trace.session": "session-1", "mlflow.trace.user": "user-1"},
    )
    search(question)
    if fail:
        divide(1, 0)
    return ask_model(question)


traces = {"ok": [], "failed": []}
for number in range(5):
    agent(f"question {number}")
    traces["ok"].append(mlflow.get_last_active_trace_id())
try:
    agent("impossible", fail=True)
except ZeroDivisionError:
    traces["failed"].append(mlflow.get_last_active_trace_id())

mlflow.flush_trace_async_logging()
print(json.dumps({"experiment_id": experiment.experiment_id, "flushed_at": time.time(), **traces}))
