"""Where BentoML 1.4.39 is stepped around: what it does, and what is done instead."""

import inspect
from typing import Any

import bentoml
import yaml
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from serving.model import ModelCard


class Error(BaseModel):
    """The body of every error."""

    message: str | dict[str, str] = Field(
        description="What to do; for invalid records, the reason for each field at fault"
    )


ERRORS = {
    "400": "The body is not JSON, or a record in it is invalid",
    "413": "The body is too large",
    "415": "The body is not announced as application/json",
    "429": "Too many predictions at once: try again after Retry-After seconds",
    "500": "A fault of the service: report it with the request ID",
    "503": "Not ready: try again after Retry-After seconds",
    "504": "No prediction in time: try again",
}
FOREIGN = ("InvalidArgument", "NotFound", "InternalServerError", "TaskStatusResponse")
TAG_HEADER = {"description": "The model that predicted", "schema": {"type": "string"}}


class TabularService(bentoml.Service):
    """A BentoML Service whose Bento keeps its model, and whose API description is true."""

    def on_load_bento(self, bento: bentoml.Bento) -> None:
        """Make the models those that the Bento was built with.

        BentoML does so for models from a hub only. Others it looks up by the tag in the code, so
        that a Bento would serve `latest`: whatever was trained last.
        """
        super().on_load_bento(bento)
        built_with = {info.tag.name: info.tag for info in bento.info.all_models}
        for model in self.models:
            object.__setattr__(model, "tag", built_with[model.tag.name])

    @property
    def openapi_spec(self) -> "Description":
        """Describe the API with the errors, headers and schemas that are really sent.

        BentoML describes errors of its own, no mounted route, and as OpenAPI 3.0.2 what pydantic
        gave it: JSON schemas as in 3.1.
        """
        spec = super().openapi_spec.asdict()
        spec["openapi"] = "3.1.0"
        spec["info"]["description"] = inspect.cleandoc(self.inner.__doc__)
        del spec["info"]["contact"]
        for api in self.apis.values():
            operation = spec["paths"][api.route]["post"]
            success = {**operation["responses"][200], "headers": {"X-Model-Tag": TAG_HEADER}}
            errors = {status: answer(reason, Error) for status, reason in ERRORS.items()}
            operation["responses"] = {"200": success, **errors}
        show = {"summary": "The served model", "responses": {"200": answer("The model", ModelCard)}}
        spec["paths"]["/model"] = {"get": {"operationId": "model", **show}}
        schemas = spec["components"]["schemas"]
        for name in FOREIGN:
            del schemas[name]
        pairs = [(Error, "serialization"), (ModelCard, "serialization")]
        schemas |= models_json_schema(pairs, ref_template=REF)[1]["$defs"]
        return Description(spec)


REF = "#/components/schemas/{model}"


def answer(description: str, model: type[BaseModel]) -> dict[str, Any]:
    """Describe an answer whose body is the JSON of a pydantic model."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


class Description(dict[str, Any]):
    """An OpenAPI document as plain data, for where BentoML expects its own class."""

    def asdict(self) -> dict[str, Any]:
        """Return the document, as the /docs.json view asks for it."""
        return dict(self)


# `bentoml build` writes the document into the Bento with `yaml.dump`.
yaml.add_representer(Description, yaml.representer.SafeRepresenter.represent_dict)
