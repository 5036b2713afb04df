"""Fields that hold a text to a form: OpenAI's `response_format`, and the names that vLLM has for the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lucidlm.control.config import ConstraintConfig
from lucidlm.core.errors import InputError
from lucidlm.serve.errors import ApiError
from lucidlm.serve.fields import SamplingBody, Strict, Text

FIELD_OF = {
    "choices": "guided_choice",
    "regex": "guided_regex",
    "json_schema": "guided_json",
    "grammar": "guided_grammar",
    "required": "required_phrases",
    "forbidden": "forbidden_phrases",
    "min_length": "min_tokens",
}


class FreeText(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObject(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(Strict):
    """A schema as chat completions have it."""

    name: Text = "answer"
    description: Text | None = None
    schema_: dict[str, Any] = Field(alias="schema", description="The JSON Schema.")
    strict: bool | None = Field(default=None, description="Of no consequence: a schema always holds.")


class JsonSchema(Strict):
    """JSON that a schema finds valid."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class FlatJsonSchema(NamedSchema):
    """The same as `/v1/responses` has it."""

    type: Literal["json_schema"]


ResponseFormat = Annotated[FreeText | JsonObject | JsonSchema, Field(discriminator="type")]
TextFormat = Annotated[FreeText | JsonObject | FlatJsonSchema, Field(discriminator="type")]


def schema_of(wanted: FreeText | JsonObject | JsonSchema | FlatJsonSchema | None) -> dict[str, Any] | None:
    """Return the JSON Schema of a format; None: any text will do."""
    match wanted:
        case JsonObject():
            return {"type": "object"}
        case JsonSchema():
            return wanted.json_schema.schema_
        case FlatJsonSchema():
            return wanted.schema_
    return None


class ConstrainedBody(SamplingBody):
    """How texts are written, and what they have to be; all that is given holds at once."""

    response_format: ResponseFormat | None = Field(default=None, description="Text, or JSON by a schema.")
    guided_choice: list[Text] | None = Field(default=None, description="The text is one of these.")
    guided_regex: Text | None = Field(default=None, description="The whole text matches this pattern.")
    guided_json: dict[str, Any] | Text | None = Field(default=None, description="The text is JSON by this schema.")
    guided_grammar: Text | None = Field(default=None, description="A grammar in Lark's syntax derives the text.")
    required_phrases: list[Text] | None = Field(default=None, description="The text holds these.")
    forbidden_phrases: list[Text] | None = Field(default=None, description="The text does not hold these.")
    min_tokens: int | None = Field(default=None, ge=0, description="The text does not end before so many.")

    def constraint(self, grammar: str | None = None) -> ConstraintConfig:
        """Return what a text has to be.

        Parameters
        ----------
        grammar: what it has to be for other reasons.

        Raises
        ------
        ApiError: two fields say the same thing differently, or one holds what it may not.
        """
        schema = schema_of(self.response_format)
        if schema is not None and self.guided_json is not None:
            raise ApiError("response_format and guided_json: give one of them", param="response_format")
        if grammar is not None and self.guided_grammar is not None:
            raise ApiError("guided_grammar: the tools have a grammar already", param="guided_grammar")
        given = {
            "choices": self.guided_choice,
            "regex": self.guided_regex,
            "json_schema": self.guided_json if schema is None else schema,
            "grammar": self.guided_grammar if grammar is None else grammar,
            "required": self.required_phrases,
            "forbidden": self.forbidden_phrases,
            "min_length": self.min_tokens,
        }
        try:
            return ConstraintConfig(**{name: value for name, value in given.items() if value is not None})
        except InputError as error:
            name = error.what.partition(".")[0].partition(":")[0]
            raise ApiError(error.what, param=FIELD_OF.get(name)) from None
