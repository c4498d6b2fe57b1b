# SPDX-License-Identifier: Apache-2.0
"""The golden vectors which the Swift and the C suites run too, through the generated declarations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm_reliability import _generated as c
from autoglm_reliability._ffi import Int32, Int64, Pointer, Uint64, byref, initialised, lib

VECTORS = Path(__file__).resolve().parents[3] / "Tests" / "vectors"
# The one formula that goes through libm, whose last digit is not the same everywhere.
LIBM_NS = 2


def cases(name: str) -> list[Any]:
    file = VECTORS / f"{name}.json"
    read = json.loads(file.read_text(encoding="utf-8"))["cases"]
    return [pytest.param(case, id=case.get("title", f"{name}-{index}")) for index, case in enumerate(read)]


def number(value: object) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)  # type: ignore[call-overload,no-any-return]


def overwrite(config: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        setattr(config, name, value if isinstance(value, float) else number(value))
    return config


def test_every_file_has_a_runner_here() -> None:
    assert {file.stem for file in VECTORS.glob("*.json")} <= {
        "backoff",
        "breaker",
        "classify",
        "hints",
        "limiter",
    }


@pytest.mark.parametrize("case", cases("backoff"))
def test_backoff(case: dict[str, Any]) -> None:
    config = overwrite(initialised(c.agr_backoff_config), case["config"])
    delay, error = Int64(), c.agr_error()
    arguments = (case["attempt"], number(case["previous_ns"]), number(case["random"]))
    status = lib.agr_backoff_delay(byref(config), *arguments, byref(delay), byref(error))
    assert status == case["status"]
    tolerance = LIBM_NS if config.strategy == c.AGR_BACKOFF_SMOOTH_DECORRELATED else 0
    assert abs(delay.value - number(case["delay_ns"])) <= tolerance


@pytest.mark.parametrize("case", cases("hints"))
def test_hints(case: dict[str, Any]) -> None:
    text = case["text"].encode()
    delay, error = Int64(), c.agr_error()
    now = number(case["wall_now_ns"])
    status = lib.agr_hint_parse(case["kind"], text, len(text), now, byref(delay), byref(error))
    assert (status, delay.value) == (case["status"], number(case["delay_ns"]))


@pytest.mark.parametrize("case", cases("classify"))
def test_classify(case: dict[str, Any]) -> None:
    rule, error = c.agr_retry_rule(), c.agr_error()
    status = lib.agr_retry_classify(None, case["domain"], case["code"], byref(rule), byref(error))
    assert status == case["status"]
    assert (rule.error_class, rule.max_retries, rule.first_delay_ns) == (
        case["error_class"],
        case["max_retries"],
        number(case["first_delay_ns"]),
    )


class Script:
    """Runs the operations of a case on one object, with the permits that they save."""

    def __init__(self, kind: str, case: dict[str, Any]) -> None:
        self.kind = kind
        self.config = overwrite(initialised(getattr(c, f"agr_{kind}_config")), case["config"])
        self.handle, self.error = Pointer(), c.agr_error()
        self.permits: dict[str, int] = {}
        timed = f"agr_{kind}_create_at" in c.FUNCTIONS
        create = getattr(lib, f"agr_{kind}_create_at" if timed else f"agr_{kind}_create")
        inputs = (byref(self.config), 0) if timed else (byref(self.config),)
        status = create(*inputs, byref(self.handle), byref(self.error))
        assert status == c.AGR_OK

    def run(self, op: dict[str, Any]) -> None:
        before = {name: value for name, value in op.items() if name not in ("op", "status", "save", "config")}
        outputs: dict[str, Any] = {}
        for name, kind in (("retry_after_ns", Int64), ("wait_ns", Int64)):
            if name in before:
                outputs[name] = kind()
                del before[name]
        if op["op"] == "available":
            outputs["tokens"] = Int64()
        if op["op"] == "state":
            outputs["state"] = Int32()
        inputs = [self.value(name, value) for name, value in before.items() if name not in outputs]
        status = self.call(op, inputs, outputs)
        assert status == op.get("status", c.AGR_OK), op
        for name, out in outputs.items():
            assert out.value == number(op[name]), (name, op)

    def value(self, name: str, value: object) -> int:
        return self.permits[str(value)] if name == "permit" else number(value)

    def call(self, op: dict[str, Any], inputs: list[int], outputs: dict[str, Any]) -> int:
        arguments: list[Any] = list(inputs)
        permit, reservation = Uint64(), c.agr_reservation()
        if op["op"] == "reconfigure":
            overwrite(self.config, op["config"])
            arguments.insert(0, byref(self.config))
        elif op["op"] == "acquire":
            arguments += [byref(permit), byref(outputs["retry_after_ns"])]
        elif op["op"] == "reserve":
            arguments += [byref(reservation), byref(outputs["retry_after_ns"])]
        else:
            arguments += [byref(out) for out in outputs.values()]
        function = getattr(lib, f"agr_{self.kind}_{op['op']}_at")
        status: int = function(self.handle, *arguments, byref(self.error))
        if "wait_ns" in outputs:
            outputs["wait_ns"].value = reservation.wait_ns
        if "save" in op:
            self.permits[op["save"]] = permit.value or reservation.permit
        return status


@pytest.mark.parametrize("kind", ["limiter", "breaker"])
def test_an_operations_fields_are_in_the_order_of_the_arguments(kind: str) -> None:
    """The runner passes them on in their order, so that order is part of the format."""
    for parameters in cases(kind):
        for op in parameters.values[0]["ops"]:
            names = list(op)
            inputs = [names.index(name) for name in ("permit", "latency_ns", "max_wait_ns") if name in op]
            assert names[0] == "op"
            assert names.index("now_ns") > max(inputs, default=0)


@pytest.mark.parametrize("case", cases("limiter"))
def test_limiter(case: dict[str, Any]) -> None:
    script = Script("limiter", case)
    for op in case["ops"]:
        script.run(op)
    lib.agr_limiter_destroy(script.handle)
    assert case["ops"]


@pytest.mark.parametrize("case", cases("breaker"))
def test_breaker(case: dict[str, Any]) -> None:
    script = Script("breaker", case)
    for op in case["ops"]:
        script.run(op)
    lib.agr_breaker_destroy(script.handle)
    assert case["ops"]
