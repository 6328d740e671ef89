"""Any body at all to the page's API: it is answered or refused, never a fault, and the page stays (R17)."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.reliability.visiting import request
from tests.serving import Scripted, served, words
from ui.sentences import FAULT

#: Twenty times as many in the long form: FUZZ=6000 make trust.
CALLS = int(os.environ.get("FUZZ", "300"))

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["/etc/passwd", "chat", "s", "<image>", "\ud800"])
file_data = st.fixed_dictionaries(
    {"path": leaves},
    optional={"url": leaves, "meta": st.just({"_type": "gradio.FileData"}) | leaves, "orig_name": leaves, "size": leaves, "is_stream": leaves},
)
values = st.recursive(
    leaves | file_data,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "files", "role", "content", "type", "file", "metadata", "component", "__type__"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)
messages = st.fixed_dictionaries({}, optional={"text": leaves | st.text(max_size=2000), "files": st.lists(file_data | leaves, max_size=5) | leaves})
bodies = (
    st.fixed_dictionaries(
        {"data": st.lists(messages | values, max_size=4) | values},
        optional={
            "fn_index": st.integers(-2, 50) | leaves,
            "session_hash": st.sampled_from(["s", "t"]) | leaves,
            "event_id": leaves,
            "event_data": values,
            "trigger_id": st.integers(0, 100) | leaves,
            "simple_format": leaves,
            "batched": leaves,
            "api_name": leaves,
        },
    )
    | values
)
raw = st.binary(max_size=200) | st.sampled_from([b"", b"[" * 5000, b'{"data":' + b"[" * 900 + b"]" * 900 + b"}", b"\xff\xfe{}", b"NaN"])
DOORS = """queue/join queue/join queue/join call/chat call/chat call/_submit_fn call/nothing call/v2/chat run/chat run/look run/predict api/chat
cancel reset component_server stream/x upload login"""


# How a call ends that went wrong outside of what `ui/page.py` sees to: without a sentence.
WORDLESS = 'event: error\ndata: {"error": null'


def calls(config: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Of the page's functions as its script calls them, a few values exchanged for any others: with other numbers of them no function is reached."""
    usual = {component["id"]: component["props"].get("value") for component in config["components"]}

    def call(function: dict[str, Any], odd: dict[int, Any], session: str) -> dict[str, Any]:
        data = [odd.get(place, usual[component]) for place, component in enumerate(function["inputs"])]
        return {"fn_index": function["id"], "session_hash": session, "data": data}

    functions = [one for one in config["dependencies"] if one["backend_fn"]]  # the others have only a script
    places = st.integers(0, max(len(one["inputs"]) for one in functions) - 1)
    return st.builds(call, st.sampled_from(functions), st.dictionaries(places, messages | values, max_size=4), st.sampled_from(["s", "t"]))


# The page's own threads draw random numbers meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@pytest.mark.timeout(0 if CALLS > 1000 else 300)
def test_no_body_is_a_fault_and_the_page_answers_after_all_of_them(tmp_path: Path) -> None:
    statuses: Counter[int] = Counter()
    endings: Counter[str] = Counter()
    with served(Scripted(words("fine")), tmp_path) as address, httpx.Client(base_url=address, timeout=60) as http:

        def send(door: str, content: bytes) -> None:
            answer = http.post(f"gradio_api/{door}", content=content, headers={"Content-Type": "application/json"})
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, answer.text
            if answer.is_success and door.startswith(("queue/", "call/")):  # it was only taken into the queue
                told = http.get(f"gradio_api/call/any/{answer.json()['event_id']}").text
                assert not [fault for fault in (FAULT, WORDLESS) if fault in told], told
                endings.update(re.findall(r"^event: (complete|error)", told, re.MULTILINE)[-1:])

        thorough = settings(max_examples=CALLS, deadline=None, database=None, suppress_health_check=list(HealthCheck))

        @thorough
        @given(door=st.sampled_from(DOORS.split()), body=bodies, instead=st.none() | st.none() | st.none() | raw)
        def anything(door: str, body: Any, instead: bytes | None) -> None:
            send(door, json.dumps(body).encode() if instead is None else instead)

        @thorough
        @given(body=calls(http.get("config").json()))
        def any_values(body: dict[str, Any]) -> None:
            send("queue/join", json.dumps(body).encode())

        anything()
        any_values()
        event = http.post("gradio_api/call/chat", json=request(address, "hi")).json()["event_id"]
        alive = "event: complete" in http.get(f"gradio_api/call/chat/{event}").text
    figures = {"calls": statuses.total(), "5xx": 0, "statuses": dict(statuses), "endings": dict(endings), "faults": 0, "server_alive": alive}
    print(json.dumps({"R17": figures}))
    assert alive
    assert endings["complete"] > CALLS / 10  # else few bodies came as far as the functions behind the doors
