"""Prints the demo: each step, its command, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from demo.mesh import DemoMesh, Unanswered
from demo.processes import Failed, until

console = Console(highlight=False, soft_wrap=True)


class Printed:
    """Prints a step, the command, and the outcome."""

    def __init__(self) -> None:
        self._number = 0

    def step(self, title: str) -> None:
        self._number += 1
        console.print(f"\n[bold]{self._number}. {escape(title)}[/bold]")

    def command(self, text: str) -> None:
        console.print(f"   [cyan]$ {escape(text)}[/cyan]")

    def note(self, text: str) -> None:
        console.print(f"   {text}", markup=False)

    def outcome(self, text: str) -> None:
        console.print(f"   [green]✔[/green] {escape(text)}")


class Steps(Printed):
    """Steps with a mesh on this machine; an outcome that does not come ends the demo."""

    def __init__(self, mesh: DemoMesh) -> None:
        super().__init__()
        self.mesh = mesh

    def kumactl(self, *arguments: str) -> str:
        self.command(" ".join(("kumactl", *arguments)))
        printed = self.mesh.kumactl(*arguments)
        for line in printed.rstrip().splitlines():
            self.note(line)
        return printed

    def calls(self, what: str, expected: Callable[[int, Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """Have `web` call `backend` until the answer is as expected."""
        last: tuple[int, Mapping[str, Any]] = (0, {})

        def ask() -> bool:
            nonlocal last
            try:
                last = self.mesh.call()
            except Unanswered:
                return False
            return expected(*last)

        try:
            until(what, ask, self.mesh.processes)
        except Failed as error:
            raise Failed(f"{error}; the last answer was {last[0]} {dict(last[1])}") from None
        return last[1]


def exit_status(walk: Callable[[], None]) -> int:
    """Takes a walk through steps, and returns how the program ends: 0 if it came to its end, 130 for Ctrl-C, or 1."""
    try:
        walk()
    except (Failed, AssertionError, OSError) as error:
        failure(error)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return 0


def failure(error: Exception) -> None:
    """Tell why the demo ends; whatever a log holds is shown as it is."""
    console.print(f"\n   [red]✘[/red] {escape(str(error) or repr(error))}")
