"""`kumactl install` and `kumactl uninstall`: what is applied to, or deleted from, a Kubernetes cluster or a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

import kuma
from kuma.base.errors import Misconfigured
from kuma.kubernetes.install import chart, manifests
from kuma.kubernetes.install.options import DEFAULT_REGISTRY, Options
from kuma.kumactl.commands import transparent_proxy

install = typer.Typer(
    help="Prints what is to be applied to a Kubernetes cluster, or sets this machine up.\n\n"
    "Example: kumactl install control-plane | kubectl apply --server-side -f -",
    no_args_is_help=True,
    rich_markup_mode=None,  # its columns would cut off long options
)
uninstall = typer.Typer(
    help="Prints what is to be deleted from a Kubernetes cluster, or cleans this machine up.\n\n"
    "Example: kumactl uninstall control-plane | kubectl delete --ignore-not-found -f -",
    no_args_is_help=True,
    rich_markup_mode=None,  # its columns would cut off long options
)


install.command("transparent-proxy")(transparent_proxy.install_transparent_proxy)
uninstall.command("transparent-proxy")(transparent_proxy.uninstall_transparent_proxy)
Namespace = Annotated[str, typer.Option(help="Namespace of the control plane.")]


@install.command("control-plane")
def install_control_plane(
    namespace: Namespace = "kuma-system",
    registry: Annotated[
        str, typer.Option(help="Registry with the images that were built from the Dockerfiles.")
    ] = DEFAULT_REGISTRY,
    version: Annotated[str, typer.Option(help="Tag of the images.")] = kuma.__version__,
    replicas: Annotated[int, typer.Option(min=1, help="Number of control planes; one of them leads.")] = 2,
    env_var: Annotated[
        list[str] | None, typer.Option(help="Further settings of the control plane, NAME=VALUE; more than once.")
    ] = None,
) -> None:
    """Print the manifests of a control plane: namespace, definitions, access, Deployment, Services, webhooks.

    Apply them again to upgrade. The certificates are made by the control plane itself, and stay as they are.

    Example: kumactl install control-plane | kubectl apply --server-side -f -
    """
    chosen = Options(
        namespace=namespace,
        registry=registry,
        version=version,
        replicas=replicas,
        environment=dict(_assignment(text) for text in env_var or ()),
    )
    _print(manifests.control_plane(chosen))


@install.command("crds")
def install_crds(namespace: Namespace = "kuma-system") -> None:
    """Print the definitions of the kinds only.

    Example: kumactl install crds | kubectl apply --server-side -f -
    """
    _print(manifests.crds(Options(namespace=namespace, version=kuma.__version__)))


@install.command("helm-chart")
def install_helm_chart(
    directory: Annotated[Path, typer.Argument(help="Directory to write the chart to; it is made.")],
) -> None:
    """Write a Helm chart of what `kumactl install control-plane` prints, with values named as in the original's.

    Example: kumactl install helm-chart kuma && helm install kuma ./kuma --namespace kuma-system --create-namespace
    """
    for path, text in chart.chart(kuma.__version__).items():
        try:
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        except OSError as error:
            raise Misconfigured(f"cannot write the chart to {directory}: {error.strerror}") from None


@uninstall.command("control-plane")
def uninstall_control_plane(
    namespace: Namespace = "kuma-system",
    with_data: Annotated[
        bool, typer.Option("--with-data", help="The definitions too, with all meshes, and the namespace with its CAs.")
    ] = False,
) -> None:
    """Print what to delete to be rid of a control plane, webhooks first; what it has stored stays.

    Restart Pods that have a sidecar before: without a control plane they get no new certificates.

    Example: kumactl uninstall control-plane | kubectl delete --ignore-not-found -f -
    """
    _print(manifests.removal(Options(namespace=namespace, version=kuma.__version__), with_data=with_data))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Misconfigured(f'--env-var "{text}" has to be NAME=VALUE')
    return name, value


def _print(objects: Sequence[dict[str, Any]]) -> None:
    typer.echo(yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True), nl=False)
