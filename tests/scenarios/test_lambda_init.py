"""What a function does while Lambda imports its handler's module, the INIT phase, and what is left for invocations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from detent_infra.aws import Resources

from tests.support.aws_stack import REGION
from tests.support.lambda_stack import environment
from tests.support.sam_template import of_type, properties

HANDLERS = [properties(function)["Handler"] for function in of_type("AWS::Serverless::Function")]
SHOP = """
from pathlib import Path
from detent import App

with Path(__file__).with_name("imports").open("a") as imports:
    imports.write("imported\\n")
app = App("shop", url="memory://")
"""
INVOKE = """
import json, sys
from importlib import import_module

opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)

class Context:
    function_name, aws_request_id, log_stream_name = "Worker", "r-1", "[$LATEST]e5a1"
    def get_remaining_time_in_millis(self): return 60_000

ready, kept = {}, []
for handler in json.loads(sys.argv[1]):
    runtime = import_module("detent_functions.runtime").runtime
    runtime.cache_clear()
    sys.modules.pop("shop", None)
    module, _, name = handler.rpartition(".")
    handle = getattr(import_module(module), name)
    ready[handler] = "shop" in sys.modules
opened.clear()
for _ in range(int(sys.argv[2])):
    kept.append(handle({"Records": [{"messageId": "odd"}]}, Context())["batchItemFailures"])
print(json.dumps({"ready": ready, "kept": kept, "opened": opened}))
"""
"""A process of the functions whose handlers are named, of which the last is invoked. Its message needs no AWS."""


def cold_start(
    place: Path, *handlers: str, invocations: int = 0, app: str | bytes = SHOP, **changed: str
) -> dict[str, Any]:
    """What the process says. `failed` has why none of a batch was handled, `imports` how often the import was begun."""
    (place / "shop.py").write_bytes(app.encode() if isinstance(app, str) else app)
    told = environment(Resources("table", "https://sqs/1/queue", "https://sqs/1/dead", "bucket", "group"))
    told |= {"DETENT_APP": "shop:app", "AWS_REGION": REGION, "PYTHONPATH": os.pathsep.join([str(place), *sys.path])}
    script = [sys.executable, "-c", INVOKE, json.dumps(handlers), str(invocations)]
    environ = {**os.environ, **told, **changed}
    done = subprocess.run(script, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *log, said = done.stdout.splitlines()
    imports = place / "imports"
    begun = len(imports.read_text().splitlines()) if imports.exists() else 0
    lines = [json.loads(line) for line in log if line.startswith("{")]
    failed = [line["exception"] for line in lines if line.get("message") == "none of the batch was handled"]
    return {**json.loads(said), "failed": failed, "imports": begun}


def test_every_function_imports_the_application_before_its_first_invocation(tmp_path: Path) -> None:
    assert cold_start(tmp_path, *HANDLERS)["ready"] == dict.fromkeys(HANDLERS, True)


def test_the_workers_first_invocation_loads_no_module_and_no_model_of_aws(tmp_path: Path) -> None:
    said = cold_start(tmp_path, "detent_functions.worker.handler", invocations=1)
    assert said["kept"] == [[{"itemIdentifier": "odd"}]]
    assert said["opened"] == []


@pytest.mark.parametrize("handler", ["detent_functions.worker.handler", "detent_functions.queue_trigger.handler"])
def test_an_application_that_fails_at_its_import_fails_each_invocation_and_not_the_start(
    handler: str, tmp_path: Path
) -> None:
    broken = SHOP + "raise RuntimeError('no such secret')\n"
    said = cold_start(tmp_path, handler, invocations=2, app=broken)
    assert said["kept"] == [[{"itemIdentifier": "odd"}]] * 2
    assert ["RuntimeError: no such secret." in each for each in said["failed"]] == [True, True]
    assert said["imports"] == 2, "at the start, whose error the first invocation tells, and for the second"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("import sys\nsys.exit(0)", "SystemExit: 0."),
        ("class Stop(BaseException): ...\nraise Stop('now')", "Stop: now."),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--no'])", "SystemExit: 2."),
        ("import os\nos.chdir('/')\nprint('half a line', end='')\n1 / 0", "ZeroDivisionError: division by zero."),
        ("x = '\udcff'", "SyntaxError: (unicode error) 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_whatever_a_module_does_at_its_import_keeps_the_messages_and_is_told_with_file_and_line(
    more: str, said: str, tmp_path: Path
) -> None:
    """`sys.exit`, too, which would end this environment in its INIT, and then the next one."""
    app = f"{SHOP}\n{more}\n".encode("utf-8", "surrogateescape")
    found = cold_start(tmp_path, "detent_functions.worker.handler", invocations=2, app=app)
    assert found["kept"] == [[{"itemIdentifier": "odd"}]] * 2
    assert [said in each and "(shop.py" in each for each in found["failed"]] == [True, True], found["failed"]


@pytest.mark.parametrize("handler", ["detent_functions.worker.handler", "detent_functions.queue_trigger.handler"])
def test_an_application_may_run_a_loop_of_its_own_while_it_is_imported(handler: str, tmp_path: Path) -> None:
    """Also in the invocation, if the start did not get as far."""
    looping = SHOP + "import asyncio\nasyncio.run(asyncio.sleep(0))\n"
    flaky = looping + "if len(Path(__file__).with_name('imports').read_text().split()) == 1: raise TimeoutError\n"
    found = cold_start(tmp_path, handler, invocations=2, app=flaky)
    assert (found["imports"], len(found["failed"])) == (2, 1)


def test_an_application_that_could_not_be_imported_at_the_start_may_be_later(tmp_path: Path) -> None:
    """A service that it asks as it is imported did not answer, and then does."""
    flaky = SHOP + "if len(Path(__file__).with_name('imports').read_text().split()) == 1: raise TimeoutError\n"
    said = cold_start(tmp_path, "detent_functions.queue_trigger.handler", invocations=2, app=flaky)
    assert said["imports"] == 2
    assert len(said["failed"]) == 1


def test_a_function_without_its_environment_starts_and_says_so_in_each_invocation(tmp_path: Path) -> None:
    said = cold_start(tmp_path, "detent_functions.worker.handler", invocations=2, DETENT_TABLE="")
    assert said["kept"] == [[{"itemIdentifier": "odd"}]] * 2
    assert ["The function's environment lacks DETENT_TABLE." in each for each in said["failed"]] == [True, True]
