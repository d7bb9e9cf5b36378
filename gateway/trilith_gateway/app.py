"""The ASGI application: routes around one platform."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version

from fastapi import FastAPI

from trilith.seams import Upstream
from trilith.settings.schema import Settings
from trilith_gateway import edge
from trilith_gateway import platform as platforms
from trilith_gateway.batch.runner import BatchRunner
from trilith_gateway.platform import Platform
from trilith_gateway.reload import Reloader, Source
from trilith_gateway.routes import (
    batch,
    convention,
    evals,
    feedback,
    file,
    inference,
    model,
    openai,
    operation,
    page,
    response,
)
from trilith_gateway.routes.readiness import Readiness


def create_app(
    settings: Settings,
    engine_urls: Mapping[str, str] | None = None,
    *,
    given: Mapping[str, Upstream] | None = None,
    source: Source | None = None,
    worker: str = "0",
    token: str | None = None,
) -> FastAPI:
    """Build the gateway for `settings`; arguments as in `platform.build` and `assemble`."""
    built = platforms.build(settings, engine_urls, given=given, worker=worker, token=token)
    return assemble(built, source=source, engine_urls=engine_urls or {})


def assemble(
    platform: Platform, *, source: Source | None = None, engine_urls: Mapping[str, str] | None = None
) -> FastAPI:
    """Put the routes around a platform. The application closes the platform when its lifespan ends.

    Args:
        platform: The collaborators.
        source: Where the settings came from, to take up changes while running; None: they stay.
        engine_urls: Where engines answer, other than where the settings say.
    """
    runner = BatchRunner(platform)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        background = [asyncio.create_task(platform.follow_keys()), asyncio.create_task(platform.warm())]
        background.append(asyncio.create_task(platform.housekeep()))
        background.append(asyncio.create_task(runner.follow()))
        if source is not None:
            app.state.reloader = Reloader(platform, source, engine_urls or {})
            background.append(asyncio.create_task(app.state.reloader.follow()))
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await runner.aclose()
            await platform.aclose()

    app = FastAPI(
        title="Trilith gateway",
        version=version("trilith"),
        summary="Language models, answers from documents, and classical models behind one gate.",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,  # it would lead to whatever host the caller names
        # FastAPI's own spans and metrics would stand beside ours, with the route instead of the model.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.platform = platform  # for the server, whose protocol answers model calls without ASGI
    app.include_router(openai.router(platform))
    app.include_router(response.router(platform))
    readiness = Readiness()
    app.include_router(inference.router(platform, readiness))
    app.include_router(model.router(platform))
    app.include_router(feedback.router(platform))
    app.include_router(batch.router(platform, runner))
    app.include_router(file.router(platform, runner.shelf))
    app.include_router(evals.router(platform))
    app.include_router(operation.router(platform, readiness))
    convention.install(app)
    edge.dress(app)
    page.publish(app)
    return app
