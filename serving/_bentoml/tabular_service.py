"""`TabularService`: BentoML's Service with `ServiceApp` in front of its application."""

import inspect
from collections.abc import Callable
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException
from starlette.types import ASGIApp

from serving._bentoml import supervisor
from serving._bentoml.metrics_folder import use_private_metrics_folder
from serving.http.openapi import OpenAPIDocument, openapi_document
from serving.observability.json_logs import use_json_logs


class TabularService(bentoml.Service):
    """A BentoML Service that predicts records with a model from the model store.

    The user's class, which BentoML calls `inner`, has the attributes `settings` (a `Settings`,
    instead of BentoML's `traffic` configuration) and `model` (a `ModelReference`).
    """

    def __attrs_post_init__(self) -> None:
        """Set the metrics folder, and register the hooks of the supervisor and of the workers."""
        super().__attrs_post_init__()
        if self.path_prefix:
            raise BentoMLException(
                f"path_prefix={self.path_prefix!r} has no effect on the prediction routes: remove "
                "it, and let a proxy strip the prefix and send it as X-Forwarded-Prefix"
            )
        if self.inner.settings.access_log == "json":
            use_json_logs()
        # Only the supervisor's folder is used: BentoML passes its path to the workers, as
        # PROMETHEUS_MULTIPROC_DIR. In a worker this line names another folder, which nothing uses.
        use_private_metrics_folder()
        # BentoML finds its hooks among the attributes of the user's class.
        self.inner.install_supervisor = bentoml.on_deployment(supervisor.install)
        self.inner.prepare_worker = bentoml.on_startup(self.prepare_worker_hook())

    def prepare_worker_hook(self) -> Callable[[Any], None]:
        """Return the function that BentoML calls with a worker's instance of the user's class.

        A closure, because BentoML passes the instance alone, and the APIs are needed too.
        """

        def prepare_worker(instance: Any) -> None:
            # Only workers import this module: the supervisor has to start fast and stay small.
            from serving._bentoml.worker import prepare_instance

            prepare_instance(instance, self.apis)

        return prepare_worker

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application of a worker: `ServiceApp` in front of BentoML's application.

        `is_main`: `bentoml serve` was given this Service, and not another that depends on it.
        """
        # Only workers import these modules, as above.
        from serving._bentoml import metrics_files

        metrics_files.install()  # before the next module creates metrics
        from serving._bentoml.worker import build_app

        self.inject_config()
        return build_app(self, is_main)

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Pin the models to those that the Bento was built with.

        BentoML does this only for models from Hugging Face. Any other would stay the one that
        service.py has just pinned: the newest of the store, or that of MODEL. The Bento may have
        another.
        """
        super().on_load_bento(bento)
        for model, info in zip(self.models, bento.info.all_models, strict=True):
            object.__setattr__(model, "tag", info.tag)

    @property
    def openapi_spec(self) -> OpenAPIDocument:
        """The OpenAPI document, which BentoML writes into a Bento and `DocsViews` serves."""
        version = self.bento.tag.version if self.bento else "development"
        description = inspect.cleandoc(self.inner.__doc__)
        return openapi_document(self.name, version, description, self.apis, self.inner.settings)
