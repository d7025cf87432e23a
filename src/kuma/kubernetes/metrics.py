"""Metrics of a control plane on Kubernetes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Counts requests to the Kubernetes API, and what does not go as it should."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "kubernetes_api_requests",
            "Requests to the Kubernetes API, by method (LIST and WATCH apart from GET) and status; 0 is no answer.",
            ["method", "status"],
            registry=registry,
        )
        self.relisted = Counter(
            "kubernetes_watches_listed_anew",
            "Watches whose past the API server has forgotten, or that could not be told otherwise.",
            registry=registry,
        )
        self.passed_over = Counter(
            "kubernetes_objects_passed_over", "Changes of objects that could not be understood.", registry=registry
        )
        self.controller_failures = Counter(
            "kubernetes_controller_failures",
            "What a controller could not put right; it tries again.",
            ["controller"],
            registry=registry,
        )
        self.without_effect = Counter(
            "kubernetes_pods_with_annotations_without_effect",
            "Pods with a sidecar that have annotations which have no effect, such as misspelt ones.",
            registry=registry,
        )
        self.weakened = Counter(
            "kubernetes_permissions_that_weakened",
            "Changes of permissions that have let somebody in who is not named by them; the audit record has each.",
            registry=registry,
        )
        self.set_aside = Counter(
            "kubernetes_transactions_set_aside",
            "Notes of transactions that are not carried out: not written by a control plane, or not understood.",
            registry=registry,
        )
        self.unfinished = Gauge(
            "kubernetes_transactions_unfinished",
            "Transactions that were left half done and can be neither completed nor undone now.",
            registry=registry,
        )
        self.missing_access = Gauge(
            "kubernetes_access_missing",
            "Verbs of resources that the control plane needs and may not use.",
            registry=registry,
        )
        self.differing_definitions = Gauge(
            "kubernetes_definitions_differing",
            "Definitions of kinds that are not those of this version.",
            registry=registry,
        )
        self.leader_differs = Gauge(
            "kubernetes_leader_of_another_version",
            "1 if the control plane that leads is of another version than this one.",
            registry=registry,
        )
        self.leads = Gauge(
            "control_plane_leads", "1 if this control plane does what only one may do at a time.", registry=registry
        )
