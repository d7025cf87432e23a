"""Makes Envoy's access loggers, which write a line for each request or connection into a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as entries_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2

from kuma.base.values.urls import host_port
from kuma.resources.models.access_logs import Sink
from kuma.resources.models.blocks import log_format
from kuma.xds.envoy import tls

_UNWRITABLE = re.compile(r"unable to open file '([^']+)'")
UNKNOWN = "unknown"
"""The source of calls to an inbound, as the original writes it: `%DOWNSTREAM_PEER_URI_SAN%` says who it is."""


class Logged(NamedTuple):
    """What is logged at a listener: where, and what is known of the calls before they are made."""

    sinks: tuple[Sink, ...] = ()
    mesh: str = ""
    source: str = ""
    destination: str = ""
    address: str = ""
    """The address of the Dataplane that the source has."""
    direction: str = ""
    workload: str = ""
    """Where TCP goes that comes in: Envoy itself would name its own listener that stands before the workload."""

    def without(self, paths: Iterable[str]) -> Logged:
        """Returns what is logged in other files than these."""
        known = frozenset(paths)
        kept = tuple(sink for sink in self.sinks if sink.path not in known)
        return self._replace(sinks=kept) if kept else NOTHING


NOTHING = Logged()


def unwritable(reason: str) -> frozenset[str]:
    """Returns the files that Envoy says it cannot open, in the reason why it rejects a listener."""
    return frozenset(_UNWRITABLE.findall(reason))


def loggers(logged: Logged, *, http: bool) -> Iterator[accesslog_pb2.AccessLog]:
    """Makes the loggers of HTTP requests, or of connections."""
    if not logged.sinks:
        return
    values = {
        "KUMA_MESH": logged.mesh,
        "KUMA_SOURCE_SERVICE": logged.source,
        "KUMA_DESTINATION_SERVICE": logged.destination,
        "KUMA_SOURCE_ADDRESS": host_port(logged.address, 0),
        "KUMA_SOURCE_ADDRESS_WITHOUT_PORT": logged.address,
        "KUMA_TRAFFIC_DIRECTION": logged.direction,
        **({"UPSTREAM_HOST": logged.workload} if logged.workload and not http else {}),
    }
    for sink in logged.sinks:
        form = substitution_format_string_pb2.SubstitutionFormatString(omit_empty_values=sink.omits_empty)
        if sink.fields:
            form.json_format.update({key: log_format.filled(value, values) for key, value in sink.fields})
        else:
            text = sink.text or (log_format.DEFAULT_HTTP if http else log_format.DEFAULT_TCP)
            form.text_format_source.inline_string = log_format.filled(text, values) + "\n"
        written = file_pb2.FileAccessLog(path=sink.path, log_format=form)
        log = accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=tls.packed(written))
        # One line for each call: those that go on are told of meanwhile, too, for reports to the control plane.
        log.filter.log_type_filter.types.append(entries_pb2.DownstreamEnd if http else entries_pb2.TcpConnectionEnd)
        yield log
