"""Answers that always come, and in time: with an error of ours, or of what we ask ourselves, too."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from kuma.base.errors import AccessDenied, InvalidResource, KumaError
from kuma.kubernetes.api.client import ApiError
from kuma.kubernetes.webhooks import review as reviews
from kuma.kubernetes.webhooks.review import Review

log = structlog.get_logger(__name__)

_SECONDS = 8.0
"""The API server waits for 10."""


async def answered(review: Review, work: Callable[[Review], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the answer of `work`, or the one to its error: what cannot be judged is refused."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await work(review)
    except InvalidResource as error:
        return reviews.invalid(review, error)
    except AccessDenied as error:
        return reviews.forbidden(review, str(error))
    except TimeoutError:
        return reviews.unavailable(review, "the control plane could not judge this in time; try again")
    except (KumaError, ApiError) as error:
        log.error("a change could not be judged", kind=review.kind, name=review.name, reason=str(error))
        return reviews.unavailable(review, str(error))
    except Exception as error:  # the API server sees to the form of objects; of others anything may stand there
        *_, last = traceback.extract_tb(error.__traceback__)
        where = f"{last.name}:{last.lineno}"
        log.error("a change has no form", kind=review.kind, name=review.name, error=type(error).__name__, where=where)
        return reviews.unreadable(review)
