"""The Service class: BentoML's Service with `ServiceApp` in front of its application."""

import inspect
from collections.abc import Callable
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException
from starlette.types import ASGIApp

from serving._bentoml.supervisor import install_supervisor, use_private_metrics_folder
from serving.http.openapi import OpenAPIDocument, openapi_document
from serving.observability.json_logs import use_json_logs


class TabularService(bentoml.Service):
    """A BentoML Service that predicts records with a model of the store.

    The user's class, which BentoML calls `inner`, has the attributes `settings` (a `Settings`,
    instead of BentoML's `traffic` configuration) and `model` (a `ModelReference`).
    """

    def __attrs_post_init__(self) -> None:
        """Prepare the metrics folder, the supervisor, and each worker once it has an instance."""
        super().__attrs_post_init__()
        if self.path_prefix:
            raise BentoMLException(
                f"path_prefix={self.path_prefix!r} has no effect on the prediction routes: remove "
                "it, and let a proxy strip the prefix and send it as X-Forwarded-Prefix"
            )
        if self.inner.settings.access_log == "json":
            use_json_logs()
        use_private_metrics_folder()  # of the supervisor, which passes it to the workers
        # BentoML finds its hooks among the attributes of the user's class.
        self.inner.install_supervisor = bentoml.on_deployment(install_supervisor)
        self.inner.prepare_worker = bentoml.on_startup(self.prepare_worker_hook())

    def prepare_worker_hook(self) -> Callable[[Any], None]:
        """Return the function that BentoML calls with a worker's instance of the user's class."""

        def prepare_worker(instance: Any) -> None:
            from serving._bentoml.worker import prepare_instance

            prepare_instance(instance, self.apis)

        return prepare_worker

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Return the application of a worker: `ServiceApp` in front of BentoML's application.

        Between a request and its dispatcher BentoML opens a span for each message, even without an
        exporter, starts a task and a timer, looks up four metrics, formats a log record and
        inspects the signature of the API. With all that, the service answered a seventh as many
        requests (benchmarks/README.md, "ServiceApp in place of BentoML's HTTP layers").
        """
        # Only workers import these modules: the supervisor has to start fast and stay small.
        from serving._bentoml import metrics_files

        metrics_files.install()  # before the next module creates metrics
        from serving._bentoml.worker import build_app

        self.inject_config()
        return build_app(self, is_main)

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Set the models to those that the Bento was built with.

        BentoML does this only for models from a hub. It looks up others by the tag in the code, so
        that a Bento would serve `latest`: whatever was trained last.
        """
        super().on_load_bento(bento)
        for model, info in zip(self.models, bento.info.all_models, strict=True):
            object.__setattr__(model, "tag", info.tag)

    @property
    def openapi_spec(self) -> OpenAPIDocument:
        """The OpenAPI document; BentoML's own describes errors of another shape."""
        version = self.bento.tag.version if self.bento else "development"
        description = inspect.cleandoc(self.inner.__doc__)
        return openapi_document(self.name, version, description, self.apis, self.inner.settings)
