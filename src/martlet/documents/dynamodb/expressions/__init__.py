"""The expression languages of DynamoDB: conditions, key conditions, updates, projections, and their values.

Owns: the grammars, what is wrong with an expression and in which words, evaluation on items in wire form, numbers of 38 digits.
Offers: `Names` (one per request), `parse_condition`, `parse_key_expression`, `parse_update`, `parse_projection`;
`numbers` and `values`. Never: reads or writes anything, knows a table, or changes an item that it was given. Expressions are
compiled once and remembered (`memory`); what it costs to parse or to evaluate one is bounded by its length, at most 4 KB.
"""

from martlet.documents.dynamodb.expressions import numbers, values
from martlet.documents.dynamodb.expressions.conditions import Condition, parse_condition
from martlet.documents.dynamodb.expressions.errors import invalid, older_words
from martlet.documents.dynamodb.expressions.keys import (
    KeyCondition,
    KeyExpression,
    KeyTest,
    key_condition,
    parse_key_condition,
    parse_key_expression,
)
from martlet.documents.dynamodb.expressions.names import Names, check_parameters
from martlet.documents.dynamodb.expressions.paths import Steps
from martlet.documents.dynamodb.expressions.projections import Projection, of_attributes, parse_projection
from martlet.documents.dynamodb.expressions.updates import Update, parse_update
from martlet.documents.dynamodb.expressions.values import AV, Item

__all__ = [
    "AV",
    "Condition",
    "Item",
    "KeyCondition",
    "KeyExpression",
    "KeyTest",
    "Names",
    "Projection",
    "Steps",
    "Update",
    "check_parameters",
    "invalid",
    "key_condition",
    "numbers",
    "of_attributes",
    "older_words",
    "parse_condition",
    "parse_key_condition",
    "parse_key_expression",
    "parse_projection",
    "parse_update",
    "values",
]
