"""Every command with its options. The work is done elsewhere, and loaded only by the command that needs it."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from detent.cli.project import Options

AppName: TypeAlias = Annotated[
    str | None,
    typer.Option("--app", metavar="MODULE:ATTR", help="The app. Default: DETENT_APP, else pyproject.toml."),
]
Url: TypeAlias = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The backend. Default: the app's, else DETENT_URL.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="A run id, or `last` for the newest run.")]
Metadata: TypeAlias = Annotated[
    list[str] | None, typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="May be repeated.")
]
Concurrency: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1, help="How many messages are driven at once.")]
Grace: TypeAlias = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="Seconds a stop waits for steps in progress.")
]

commands = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@commands.callback(invoke_without_command=True)
def detent(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Durable workflows: on one SQLite file here, on DynamoDB and SQS there."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"detent {version_of('detent')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# ---- a project ------------------------------------------------------------------------------------------------


@commands.command()
def init(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Made if it is not there; else it must be empty.")
    ] = ".",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the project. Default: the directory's.")] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print the platform's template.yaml for this app, and write nothing.")
    ] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Make a project: an app, its tests, and all it takes to run and deploy it."""
    from pathlib import Path

    from detent.cli.init import make_project, print_template

    if template:
        print_template(Options(app))
    else:
        make_project(Path(folder), name, as_json=json)


# ---- work -----------------------------------------------------------------------------------------------------


@commands.command()
def dev(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """Work on runs, show them, and reload when the code changes."""
    from detent.cli.reload import keep_serving

    raise typer.Exit(keep_serving(Options(app, url), concurrency=concurrency, grace=grace))


@commands.command(hidden=True)
def dev_worker(
    parent: Annotated[int, typer.Option()],
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 5.0,
) -> None:
    """The worker inside `dev`: ends with a code of its own when the source has changed."""
    from detent.cli.reload import serve_until_changed

    raise typer.Exit(serve_until_changed(Options(app, url), parent=parent, concurrency=concurrency, grace=grace))


@commands.command()
def worker(
    app: AppName = None,
    url: Url = None,
    concurrency: Concurrency = 100,
    grace: Grace = 30.0,
) -> None:
    """Work on runs until SIGTERM or Ctrl-C.

    Steps in progress then have --grace seconds to end; what is cut off is delivered again.
    """
    from detent.cli.workers import serve

    raise typer.Exit(serve(Options(app, url), concurrency=concurrency, grace=grace))


# ---- runs -----------------------------------------------------------------------------------------------------


@commands.command()
def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW")],
    input: Annotated[
        str | None, typer.Argument(metavar="JSON", help="The input: JSON, @FILE, or - for standard input.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its steps, and end with its result.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Work in this process too, until the run ends. Implies --follow.")
    ] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The same key and input start one run only.")] = None,
    metadata: Metadata = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Start a run and print its id, or, with --follow, its result.

    With --follow, the exit code is 1 if the run fails or is cancelled.
    """
    from detent.cli.run import Request, start

    start(Options(app, url), Request(workflow, input, key, metadata or []), follow=follow, here=here, as_json=json)


@commands.command()
def runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", metavar="STATUS", help="Only these; repeat it, or join with commas."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Started since: 10m, 2h, 3d, or an ISO time.")
    ] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many.")] = 20,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from detent.cli.runs import Filter, show_runs

    show_runs(Options(app, url), Filter(workflow, status or [], since, metadata or [], limit), as_json=json)


@commands.command()
def show(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """Show a run: its steps in time, its output or its error."""
    from detent.cli.show import show_run

    show_run(Options(app, url), run, as_json=json)


@commands.command()
def logs(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run id, or `last`. Without it: all runs, the last 10 minutes."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Lines since: 10m, 2h, 3d, or an ISO time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Lines until then.")] = None,
    step: Annotated[str | None, typer.Option(metavar="PATH", help="Only this step, all its attempts.")] = None,
    level: Annotated[str | None, typer.Option(metavar="LEVEL", help="Only this level and above, as in warn.")] = None,
    filter: Annotated[str, typer.Option("--filter", metavar="PATTERN", help="A CloudWatch Logs filter pattern.")] = "",
    children: Annotated[bool, typer.Option("--children", help="The runs that came of it too: its retries.")] = False,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow; without RUN.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="The first so many; 10,000, unless it follows."),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=1, help="Search at most so long; 60, unless it follows."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Print the log of a run, or of all.

    With --json, one JSON object per line.
    """
    from detent.cli.logs import Wanted, show_logs

    wanted = Wanted(run, workflow, step, level, filter, since, until, children, limit, timeout)
    show_logs(Options(app, url), wanted, follow=follow, as_json=json)


@commands.command()
def cost(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run id, or `last` for the newest run.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option("--workflow", "-w", metavar="NAME", help="Instead of RUN: the average of its newest ended runs."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Of at most so many runs.")] = 20,
    memory: Annotated[int, typer.Option(metavar="MB", min=128, max=10_240, help="The Lambda worker's memory.")] = 1024,
    architecture: Annotated[
        str, typer.Option(metavar="NAME", help="What the Lambda worker runs on: arm64 or x86_64.")
    ] = "arm64",
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Estimate what a run costs on AWS, from its records.

    On any backend: for a run on SQLite it is what the same run would cost on AWS.
    """
    from detent.cli.cost import Question, show_cost

    show_cost(Options(app, url), Question(run, workflow, limit, memory, architecture), as_json=json)


@commands.command()
def cancel(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """End a live run.

    No new step starts; one in progress hears of it at its next heartbeat.
    """
    from detent.cli.runs import cancel_run

    cancel_run(Options(app, url), run, as_json=json)


@commands.command()
def retry(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its steps, and end with its result.")] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Start a new run where a failed or cancelled one ended.

    Prints the new run's id. Completed steps do not run again.
    """
    from detent.cli.run import retry_run

    retry_run(Options(app, url), run, follow=follow, as_json=json)


# ---- messages -------------------------------------------------------------------------------------------------


@commands.command()
def send(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue that workflows name with `on_queue`.")],
    message: Annotated[str, typer.Argument(metavar="JSON", help="The message: JSON, @FILE, or - for standard input.")],
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The same id starts nothing twice. Default: a new one.")
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME=VALUE", help="An attribute of the message. May be repeated."),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Send it even if no workflow of the app could use it.")
    ] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Put a message into a queue whose messages start runs, and print its id.

    With an app, the message is first held to what its workflows expect of it.
    """
    from detent.cli.queues import Message, send_message

    message_ = Message(queue, message, id, attribute or [])
    send_message(Options(app, url), message_, unchecked=unchecked, as_json=json)


@commands.command()
def dead(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue that workflows name with `on_queue`.")],
    redrive: Annotated[
        bool, typer.Option("--redrive", help="Move them back into the queue, to be tried again.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many.")] = 10,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List messages of a queue that could start nothing, with the reason."""
    from detent.cli.queues import redrive_letters, show_letters

    act = redrive_letters if redrive else show_letters
    act(Options(app, url), queue, limit, as_json=json)


# ---- deploying ------------------------------------------------------------------------------------------------


@commands.command()
def package(
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to make or replace.")] = "build/lambda",
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="arm64 or x86_64. Default: template.yaml's.")
    ] = None,
    python_version: Annotated[
        str | None, typer.Option(metavar="3.N", help="Of the Lambda runtime. Default: template.yaml's.")
    ] = None,
    bytecode: Annotated[
        bool | None, typer.Option(help="Compile the modules. Default: if a Python of that version is found.")
    ] = None,
    compile_with: Annotated[str | None, typer.Option(metavar="PYTHON", help="A Python of that version.")] = None,
    lock: Annotated[bool, typer.Option("--lock", help="Write requirements.lock instead.")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="With --lock: take the newest versions.")] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Make the folder that Lambda unpacks: detent, the app, and its locked dependencies.

    It holds what template.yaml's runtime and architecture load, whatever this machine is. Needs `detent[deploy]`.
    """
    from detent_state_machine.errors import InputError

    from detent.cli.package import Wanted, package
    from detent.cli.package import lock as write_lock

    if upgrade and not lock:
        raise InputError("--upgrade changes what is locked.", advice="detent package --lock --upgrade")
    wanted = Wanted(out, python_version, architecture, bytecode, compile_with)
    if lock:
        write_lock(wanted, upgrade=upgrade, as_json=json)
    else:
        package(Options(app), wanted, as_json=json)


@commands.command()
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
    from detent.cli.deploy import Wanted
    from detent.cli.deploy import deploy as deploy_app

    deploy_app(Options(app), Wanted(stack, region, parameter or [], yes=yes, strand=strand), as_json=json)


# ---- what there is --------------------------------------------------------------------------------------------


@commands.command()
def graph(
    workflow: Annotated[str | None, typer.Argument(metavar="WORKFLOW", help="Not needed if there is one only.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    list: Annotated[bool, typer.Option("--list", "-l", help="List the workflows.")] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Draw a workflow, or list them.

    It is the app's; without an app, the newest that a worker has registered.
    """
    from detent.cli.graph import list_workflows, show_graph

    if list:
        list_workflows(Options(app, url), as_json=json)
    else:
        show_graph(Options(app, url), workflow, mermaid=mermaid, as_json=json)


@commands.command()
def doctor(
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help="Look at this deployed stack instead: its name or aws:// URL."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Check the app and the backend, and say what to mend.

    With --stack, check how a stack is set up on AWS, without changing anything. Exit code 2 if something is wrong.
    """
    if stack is not None:
        from detent_state_machine.errors import InputError

        from detent.cli.stack_doctor import examine_stack

        if app is not None or url is not None:
            raise InputError("--stack looks at a stack, and at no app or other backend.", advice="Leave one out.")
        raise typer.Exit(examine_stack(stack, as_json=json))
    from detent.cli.doctor import examine

    raise typer.Exit(examine(Options(app, url), as_json=json))
