"""What Prometheus reads: every line in its form, and no more of them than are allowed."""

from __future__ import annotations

import re

import pytest

from flux_hotswap.hosted_api.metrics import OTHER, Counter, Metrics

VALUE = r'"(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(
    rf"(?P<name>[a-z_]+)(?:\{{[a-z]+={VALUE}(?:,[a-z]+={VALUE})*\}})? (?P<value>[0-9.e+-]+)"
)
ABOUT = re.compile(
    r"# (?:HELP (?P<told>[a-z_]+) \S.*|TYPE (?P<typed>[a-z_]+) (?:counter|gauge|histogram))"
)


def read(text: str) -> dict[str, float]:
    """Return each sample's value by its name and labels; every line has to be in the form."""
    found: dict[str, float] = {}
    typed = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        about, sample = ABOUT.fullmatch(line), SAMPLE.fullmatch(line)
        assert about or sample, line
        if about:
            typed = about["typed"] or typed
            continue
        assert sample
        assert re.fullmatch(rf"{typed}(?:_bucket|_sum|_count)?", sample["name"]), line
        key = line.rpartition(" ")[0]
        assert key not in found, "twice"
        found[key] = float(sample["value"])
    return found


def test_what_was_counted_is_in_the_text() -> None:
    metrics = Metrics()
    assert read(metrics.text()) == {
        "hotswap_queue_length": 0,
        "hotswap_queue_oldest_seconds": 0,
        "hotswap_running": 0,
        "hotswap_attempts_lost_total": 0,
    }
    metrics.queued.set(3)
    metrics.oldest.set(12.25)
    metrics.running.set(1)
    metrics.workers.set(2, state="up")
    metrics.ended.add(status="succeeded")
    metrics.ended.add(status="succeeded")
    metrics.lost.add()
    metrics.switches.add(what="lora")
    metrics.requests.add(method="GET", route="/v1/predictions/{id}", status="200")
    metrics.webhooks.add(event="completed", outcome="given_up")
    metrics.stored.add(2**40 + 1, what="uploads")
    found = read(metrics.text())
    assert found["hotswap_queue_length"] == 3
    assert found["hotswap_queue_oldest_seconds"] == 12.25
    assert found['hotswap_workers{state="up"}'] == 2
    assert found['hotswap_predictions_total{status="succeeded"}'] == 2
    assert found["hotswap_attempts_lost_total"] == 1
    row = 'hotswap_http_requests_total{method="GET",route="/v1/predictions/{id}",status="200"}'
    assert found[row] == 1
    assert found['hotswap_webhooks_total{event="completed",outcome="given_up"}'] == 1
    assert found['hotswap_stored_bytes_total{what="uploads"}'] == 2**40 + 1


def test_a_histogram_counts_up_from_bucket_to_bucket() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.1, 7, 4000):
        metrics.seconds.observe(seconds, phase="run")
    found = read(metrics.text())
    row = 'hotswap_phase_seconds_bucket{{phase="run",le="{}"}}'
    counts = [found[row.format(bound)] for bound in ("0.05", "0.1", "5", "10", "900", "+Inf")]
    assert counts == [1, 2, 2, 3, 3, 4], "a bucket's bound is in it"
    assert found['hotswap_phase_seconds_count{phase="run"}'] == 4
    assert found['hotswap_phase_seconds_sum{phase="run"}'] == pytest.approx(4007.11)


def test_labels_are_escaped() -> None:
    counter = Counter("name", "Told.", ["what"])
    counter.add(what='a "b" \\ c\nd')
    assert list(counter.lines())[-1] == 'name{what="a \\"b\\" \\\\ c\\nd"} 1'


def test_combinations_are_bounded() -> None:
    metrics = Metrics()
    for number in range(500):
        metrics.requests.add(method="GET", route=f"/{number}", status="404")
    metrics.requests.add(method="GET", route="/3", status="404")
    found = {key: value for key, value in read(metrics.text()).items() if "requests" in key}
    assert len(found) == 201
    assert (
        found[f'hotswap_http_requests_total{{method="{OTHER}",route="{OTHER}",status="{OTHER}"}}']
        == 300
    )
    assert found['hotswap_http_requests_total{method="GET",route="/3",status="404"}'] == 2
