"""Packages the app, shows what will change, deploys it, and registers its workflows."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from detent_infra.aws.resources import Clients
from detent_infra.connect import connect, parse_aws
from detent_infra.ids import new_id
from detent_infra.ops.deployer import ChangeSet, Deployer, ResourceChange, StackEvent
from detent_infra.ops.doctor.capacity import judge_capacity
from detent_infra.ops.loss import judge_changes, judge_runs, lost, told
from detent_infra.ops.packaging import LOCK, MB, build, read_project, read_target, write_lock
from detent_infra.ops.packaging.archive import archive, code_folders, with_code
from detent_infra.ops.packaging.reading import mapping_at
from detent_infra.ops.packaging.samconfig import SamConfig, parameters_of, read_samconfig
from detent_infra.ops.packaging.target import TEMPLATE, read_template
from detent_infra.ops.stranding import Outlook, outlook
from detent_infra.runs.lifecycle import Lifecycle
from detent_state_machine.errors import ConfigurationError, InputError

from detent.app import App
from detent.cli.commands.package import not_compiled
from detent.cli.options import AppName, AsJson
from detent.cli.output import write_json, write_line
from detent.cli.progress import Progress
from detent.cli.project import Options, app_name, load_app

OUT = "build/lambda"


def deploy(
    stack: Annotated[
        str | None, typer.Option("--stack", metavar="NAME", help="The stack. Default: samconfig.toml's.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="Default: samconfig.toml's, else AWS's own."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Of the template; repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    strand: Annotated[
        bool, typer.Option("--strand", help="Deploy although live runs need steps, tables or queues that go away.")
    ] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Package the app, deploy it to AWS as a CloudFormation stack, and register its workflows.

    Shows what will change, and asks. Needs `detent[deploy]`, and no other tool.
    """

    _deploy(Options(app), DeployOptions(stack, region, parameter or [], yes=yes, strand=strand), as_json=json)


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """The command's options as given. `strand`: deploy although live runs are left behind by it."""

    stack: str | None = None
    region: str | None = None
    parameters: Sequence[str] = ()
    yes: bool = False
    strand: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to. `url` is the backend's."""

    stack: str
    region: str | None
    endpoint: str | None

    @property
    def url(self) -> str:
        options = [f"{name}={value}" for name, value in (("region", self.region), ("endpoint", self.endpoint)) if value]
        return f"aws://{self.stack}" + ("?" + "&".join(options) if options else "")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is to be deployed, found out before anything is made."""

    app: App
    name: str
    """`module:attribute`."""
    root: Path
    config: SamConfig
    parameters: Mapping[str, str]
    declared: frozenset[str]
    """Parameters that the template has."""


def _deploy(options: Options, wanted: DeployOptions, *, as_json: bool) -> None:
    """Deploys the project in the current directory.

    Raises `WrongState` if that would leave live runs behind, `ConfigurationError` for whatever is not set up or
    failed, with CloudFormation's reason.
    """
    if not wanted.yes and (as_json or not sys.stdin.isatty()):
        raise InputError("Nobody is there to be asked whether to deploy.", advice="Pass --yes.")
    progress = Progress()
    plan = _plan(options, wanted, Path.cwd())
    place = _place(wanted, plan.config)
    with closing(Clients(place.region, place.endpoint)) as clients:
        with progress.phase("check", "looking at the stack and its live runs") as phase:
            deployer = Deployer(clients, time.sleep)
            place = replace(place, region=deployer.region)
            stack = deployer.stack(place.stack)
            creates = stack is None or not stack.exists
            phase.told = f"{plan.name}; {'new stack' if creates else 'stack'} {place.stack} in {place.region}"
            if not creates:
                phase.told += f"; {_look_ahead(plan, place, wanted)}"
            before: Mapping[str, str] = {} if creates or stack is None else stack.parameters
            template = read_template(plan.root / TEMPLATE)
            found = list(judge_capacity(clients, template, {**before, **plan.parameters}))
        for each in found:
            progress.line(f"{each.message} {each.fix}", "yellow")
        kept = sorted((plan.declared & before.keys()) - plan.parameters.keys())
        change_set = _prepared(progress, deployer, clients, plan, place.stack, kept=kept, creates=creates)
        if change_set is not None:
            with deployer.held(change_set):
                _agreed(progress, deployer, change_set, place, wanted)
                if not creates:  # what was started while this was packaged and the user thought about it
                    with progress.phase("check", "looking at the live runs again") as phase:
                        phase.told = _look_ahead(plan, place, wanted)
            _executed(progress, deployer, change_set)
        with progress.phase("register", "registering the workflows") as phase:
            left = asyncio.run(_register(place.url, plan.app))
            phase.told = ", ".join(plan.app.definitions())
        outputs = deployer.outputs(place.stack)
    _tell(progress, plan, place, change_set, outputs, left, as_json=as_json)


# ---- before ---------------------------------------------------------------------------------------------------


def _plan(options: Options, wanted: DeployOptions, root: Path) -> Deployment:
    app = load_app(options)
    name = app_name(options)
    assert name is not None, "load_app found it"
    config = read_samconfig(root)
    parameters = {**config.parameters, **parameters_of(wanted.parameters)}
    declared = frozenset(mapping_at(read_template(root / TEMPLATE), "Parameters"))
    if "App" in declared and parameters.setdefault("App", name.value) != name.value:
        raise InputError(
            f"The parameter App is {parameters['App']!r}, but the app (from {name.source}) is {name.value!r}.",
            advice="Give it once: as the app.",
        )
    if unknown := sorted(parameters.keys() - declared):
        raise InputError(
            f"{TEMPLATE} has no parameter {', '.join(unknown)}.", advice=f"It has {', '.join(sorted(declared))}."
        )
    return Deployment(app, name.value, root, config, parameters, declared)


def _place(wanted: DeployOptions, config: SamConfig) -> Destination:
    given = wanted.stack or config.stack
    if given is None:
        raise ConfigurationError(
            "No stack is named.",
            advice="Pass --stack NAME, or write stack_name under [default.global.parameters] in samconfig.toml.",
        )
    stack, region, endpoint = parse_aws(given if "://" in given else f"aws://{given}")
    return Destination(stack, wanted.region or region or config.region, endpoint)


def _look_ahead(plan: Deployment, place: Destination, wanted: DeployOptions) -> str:
    async def look() -> Outlook:
        with closing(connect(place.url)) as backend:
            return await outlook(Lifecycle(backend), plan.app.definitions())

    return judge_runs(asyncio.run(look()), place.url, strand=wanted.strand)


# ---- package, upload, change set ------------------------------------------------------------------------------


def _prepared(
    progress: Progress,
    deployer: Deployer,
    clients: Clients,
    plan: Deployment,
    stack: str,
    *,
    kept: Sequence[str],
    creates: bool,
) -> ChangeSet | None:
    bucket = plan.config.bucket or deployer.code_bucket()
    with progress.phase("package", f"packaging {plan.name}") as phase:
        project, target = read_project(plan.root), read_target(plan.root / TEMPLATE)
        if not (plan.root / LOCK).exists():
            write_lock(project, target, upgrade=False)
        folder = build(project, plan.name, target, plan.root / OUT)
        phase.told = f"{OUT} for {target}, {folder.size.unzipped / MB:.1f} MB"
    if not folder.bytecode:
        progress.line(f"{not_compiled(folder)} One on the PATH as python{target.python} would do it.", "yellow")
    label = new_id()
    with progress.phase("upload", "uploading the code") as phase:
        sent = _uploaded(deployer, plan.root, bucket, stack, label)
        phase.told = f"{sent / MB:.1f} MB to {bucket}" if sent else f"nothing new for {bucket}"
    with progress.phase("changes", "asking CloudFormation what will change") as phase:
        change_set = deployer.prepare(
            stack,
            f"{clients.s3.meta.endpoint_url}/{bucket}/{stack}/{label}.yaml",
            plan.parameters,
            kept=kept,
            capabilities=plan.config.capabilities,
            creates=creates,
            label=f"detent-{label}",
        )
        phase.told = "none" if change_set is None else _counted(change_set.changes)
    return change_set


def _uploaded(deployer: Deployer, root: Path, bucket: str, stack: str, label: str) -> int:
    """Uploads what the template names, and the template with the places of that. The bytes of code that were sent."""
    sent = 0
    places: dict[str, str] = {}
    with TemporaryDirectory(prefix="detent-deploy-") as made:
        for number, folder in enumerate(code_folders(root / TEMPLATE)):
            zipped = archive(root / folder, Path(made, f"{number}.zip"))
            key = f"{stack}/{zipped.digest}.zip"
            sent += zipped.size if deployer.upload(zipped.file, bucket, key) else 0
            places[folder] = f"s3://{bucket}/{key}"
        file = Path(made, TEMPLATE)
        file.write_text(with_code(root / TEMPLATE, places), encoding="utf-8")
        deployer.upload(file, bucket, f"{stack}/{label}.yaml")
    return sent


def _counted(changes: Sequence[ResourceChange]) -> str:
    words = {"Add": "added", "Modify": "modified", "Remove": "removed", "Import": "imported"}
    counts = {action: sum(1 for each in changes if each.action == action) for action in words}
    return ", ".join(f"{count} {words[action]}" for action, count in counts.items() if count)


def _agreed(
    progress: Progress, deployer: Deployer, change_set: ChangeSet, place: Destination, wanted: DeployOptions
) -> None:
    """Shows the change, and asks. Raises `WrongState` if it loses what holds runs, `InputError` if the answer is no."""
    gone = lost(change_set)
    for each in change_set.changes:
        note = "  what it holds is left behind" if each in gone else ""
        maybe = "  (may be replaced)" if note else ""  # often said of rules and permissions, where it does no harm
        again = {"True": "  (replaced)", "Conditional": maybe}.get(each.replaced, "")
        if each.action != "Add" or not change_set.creates:
            said = f"  {each.action.lower():<7} {each.logical:<24} {each.kind}{again}{note}"
            progress.line(said, "red" if note else "")
    judge_changes(change_set, strand=wanted.strand)
    if wanted.yes:
        return
    asked = f"Deploy to {place.stack} in {place.region}, account {deployer.account}? [y/N] "
    try:
        agreed = input(asked).strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        agreed = False
    if not agreed:
        raise InputError("Nothing was deployed.")


def _executed(progress: Progress, deployer: Deployer, change_set: ChangeSet) -> None:
    began: dict[str, float] = {}
    with progress.phase("deploy", f"deploying {len(change_set.changes)} changes") as phase:
        try:
            for event in deployer.execute(change_set):
                _show(progress, event, began)
        except KeyboardInterrupt:
            progress.line(
                f"CloudFormation goes on without us. Once {change_set.stack} is done, run `detent deploy` again, which "
                "registers the workflows; or the stack's tick does, within a minute.",
                "yellow",
            )
            raise
        phase.told = f"{len(began)} resources"


def _show(progress: Progress, event: StackEvent, began: dict[str, float]) -> None:
    now = time.monotonic()
    if event.kind == "AWS::CloudFormation::Stack":
        return
    first = began.setdefault(event.logical, now)
    if event.failed:
        progress.line(f"  {event.status}  {event.logical}: {event.reason}", "red")
    elif event.status.endswith("_COMPLETE"):
        progress.line(f"  {now - first:5.0f} s  {event.logical:<24} {event.status}")


# ---- after ----------------------------------------------------------------------------------------------------


async def _register(url: str, app: App) -> Outlook:
    """Registers the workflows. Returns what is stranded: runs that were started meanwhile, or that were to be."""
    with closing(connect(url)) as backend:
        lifecycle = Lifecycle(backend)
        await lifecycle.register(app.definitions().values())
        return await outlook(lifecycle, app.definitions())


def _tell(
    progress: Progress,
    plan: Deployment,
    place: Destination,
    change_set: ChangeSet | None,
    outputs: Mapping[str, str],
    left: Outlook,
    *,
    as_json: bool,
) -> None:
    if left.stranded:
        progress.line(
            f"Stranded: {told(left)}. They wait until a worker has these steps, or until they are cancelled.",
            "red",
        )
    if as_json:
        write_json(
            {
                "stack": place.stack,
                "region": place.region,
                "url": place.url,
                "app": plan.name,
                "changes": [asdict(each) for each in (change_set.changes if change_set else ())],
                "outputs": dict(outputs),
                "registered": {name: each.version for name, each in plan.app.definitions().items()},
                "stranded": [asdict(each) for each in left.stranded],
                "phases": [{"name": each.name, "seconds": each.milliseconds / 1000} for each in progress.phases],
            }
        )
        return
    for name, value in sorted(outputs.items()):
        write_line(f"{name:<20} {value}")
    url = shlex.quote(place.url)
    workflow = next(iter(plan.app.definitions()))
    progress.line("Next:")
    for command in (
        f"detent run {shlex.quote(workflow)} JSON --follow --url {url}",
        f"detent runs --url {url}",
        f"detent doctor --stack {url}",
    ):
        progress.line(f"  {command}")
