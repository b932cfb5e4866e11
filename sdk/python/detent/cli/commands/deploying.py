"""From a project to a stack on AWS."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.options import AppName, AsJson
from detent.cli.project import Options


def package(
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="The folder to make or replace. Default: build/lambda.")
    ] = None,
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
    if lock:
        written = "--no-bytecode" if bytecode is False else "--bytecode"
        of_folder = {"--out": out, "--architecture": architecture, written: bytecode, "--compile-with": compile_with}
        for option in [option for option, value in of_folder.items() if value is not None]:
            raise InputError(
                f"{option} is about the folder; --lock makes none, and its lock serves every one.",
                advice=f"Leave {option} out here, and give it to the `detent package` that follows.",
            )
        write_lock(python_version, upgrade=upgrade, as_json=json)
    else:
        wanted = Wanted(out or "build/lambda", python_version, architecture, bytecode, compile_with)
        package(Options(app), wanted, as_json=json)


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
