"""MeshTrafficPermission: which callers a part of the mesh admits, and which it refuses. Refusals override.

Callers are named by the mesh's tags (`from`), or by SPIFFE IDs (`rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import AliasChoices, Field

from kuma.base.errors import Violation
from kuma.base.values import spiffe_ids
from kuma.resources import limits
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.target_ref import CALLERS, TargetRef
from kuma.resources.resource import Model

ALLOW, DENY, SHADOW_DENY = ACTIONS = ("Allow", "Deny", "AllowWithShadowDeny")
_LISTS = ("allow", "allowWithShadowDeny", "deny")
MATCHES = ("Exact", "Prefix")
EFFECT, SHADOW = "kuma.io/effect", "shadow"
"""A label, and its value that keeps a policy from having any effect."""

Caller = Mapping[str, str]
"""The tags that a caller has to have; none for every caller with an identity of the mesh."""


class Default(Model):
    """Action for a caller."""

    action: str = ""


class From(Model):
    """Callers, and the action for them."""

    target_ref: TargetRef = TargetRef()
    default: Default = Default()


class SpiffeIdMatch(Model):
    """A SPIFFE ID, or all that lie at and below one: a prefix ends at the boundary of a segment."""

    type: str = ""
    value: str = ""

    def caller(self, mesh: str) -> Caller | None:
        """Returns the callers of a mesh that it means; None if no identity of the mesh is like that.

        Identities here are `spiffe://<mesh>/<service>`, and a service is one segment.
        """
        trust_domain, segments = spiffe_ids.parts(self.value)
        if trust_domain != mesh or len(segments) > 1 or (not segments and self.type == "Exact"):
            return None
        return {tag_rules.SERVICE: segments[0]} if segments else {}


class Match(Model):
    """Marks that a caller is recognised by."""

    spiffe_id: SpiffeIdMatch | None = Field(
        default=None, alias="spiffeID", validation_alias=AliasChoices("spiffeID", "spiffeId")
    )
    """The original reads the names of fields without regard to case, and its pages have both."""


class RuleDefault(Model):
    """Callers that are admitted and refused."""

    allow: tuple[Match, ...] = ()
    deny: tuple[Match, ...] = ()
    allow_with_shadow_deny: tuple[Match, ...] = ()


class Rule(Model):
    """One rule; several add up."""

    default: RuleDefault = RuleDefault()

    @property
    def lists(self) -> Iterator[tuple[str, str, tuple[Match, ...]]]:
        """The lists with their names and actions."""
        lists = (self.default.allow, self.default.allow_with_shadow_deny, self.default.deny)
        return zip(_LISTS, (ALLOW, SHADOW_DENY, DENY), lists, strict=True)


class MeshTrafficPermissionSpec(Model):
    """Spec of a MeshTrafficPermission. Without a target it is for the whole mesh."""

    target_ref: TargetRef | None = None
    from_: tuple[From, ...] = Field(default=(), alias="from")
    rules: tuple[Rule, ...] = ()

    @property
    def selected(self) -> Mapping[str, str]:
        """The facets by which it selects inbounds; none for all of the mesh."""
        return self.target_ref.selected if self.target_ref else {}

    @property
    def section(self) -> str:
        """The field under which callers are named."""
        return "rules" if self.rules else "from"

    @property
    def size(self) -> int:
        """The number of callers that it names."""
        return len(self.from_) + sum(len(matches) for rule in self.rules for _, _, matches in rule.lists)

    def statements(self, mesh: str) -> Iterator[tuple[str, Caller]]:
        """Yields the actions with the callers they are for. Of who cannot be in the mesh nothing is said."""
        for item in self.from_:
            yield item.default.action, item.target_ref.selected
        for rule in self.rules:
            for _, action, matches in rule.lists:
                for match in matches:
                    caller = match.spiffe_id.caller(mesh) if match.spiffe_id else None
                    if caller is not None:
                        yield action, caller


def validate(spec: MeshTrafficPermissionSpec) -> Iterator[Violation]:
    """Checks every rule that the structure alone does not express."""
    if spec.target_ref is not None:
        yield from target_ref.validate("targetRef", spec.target_ref)
    if spec.from_ and spec.rules:
        yield Violation("", "field 'from' must be empty when 'rules' is defined")
    if not spec.from_ and not spec.rules:
        yield Violation("", "at least one of 'from' or 'rules' has to be defined")
    for index, item in enumerate(spec.from_):
        path = f"from[{index}]"
        yield from target_ref.validate(f"{path}.targetRef", item.target_ref, CALLERS)
        if not item.default.action:
            yield Violation(f"{path}.default.action", f"must be defined; one of {', '.join(ACTIONS)}")
        elif item.default.action not in ACTIONS:
            yield Violation(f"{path}.default.action", f"has to be one of {', '.join(ACTIONS)}")
    if spec.size > limits.CALLERS:
        yield Violation("rules", f"name {spec.size:,} callers; {limits.CALLERS:,} are the most. Split the permission")
    for index, rule in enumerate(spec.rules):
        yield from _rule(f"rules[{index}]", rule)


def _rule(path: str, rule: Rule) -> Iterator[Violation]:
    if not any(matches for _, _, matches in rule.lists):
        yield Violation(path, "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined")
    for name, _, matches in rule.lists:
        for index, match in enumerate(matches):
            yield from _match(f"{path}.{name}[{index}]", match)


def _match(path: str, match: Match) -> Iterator[Violation]:
    """Refuses a match that says nothing: it would mean everybody, or nobody."""
    if match.spiffe_id is None:
        yield Violation(f"{path}.spiffeID", "must be defined")
        return
    if match.spiffe_id.type not in MATCHES:
        yield Violation(f"{path}.spiffeID.type", f"has to be one of {', '.join(MATCHES)}")
    problem = spiffe_ids.problem(match.spiffe_id.value)
    if problem:
        ends_anyway = "; a prefix ends at the boundary of a segment" if problem.endswith("trailing slash") else ""
        yield Violation(f"{path}.spiffeID", f"must be a valid Spiffe ID: {problem}{ends_anyway}")


def warnings(spec: MeshTrafficPermissionSpec) -> Iterator[str]:
    """Returns warnings about what is allowed but should be known."""
    if any(item.target_ref.kind == "MeshService" for item in spec.from_):
        yield (
            "MeshService value for 'from[].targetRef.kind' is deprecated, use MeshSubset with 'kuma.io/service' instead"
        )


def foreign_identities(spec: MeshTrafficPermissionSpec, mesh: str) -> Iterator[str]:
    """Yields a warning for each SPIFFE ID that nobody in the mesh has, however it is called."""
    for index, rule in enumerate(spec.rules):
        for name, _, matches in rule.lists:
            for position, match in enumerate(matches):
                if match.spiffe_id is not None and match.spiffe_id.caller(mesh) is None:
                    yield (
                        f"spec.rules[{index}].default.{name}[{position}].spiffeID: nobody in mesh {mesh} is "
                        f"{match.spiffe_id.value}: identities here are spiffe://{mesh}/<service>"
                    )
