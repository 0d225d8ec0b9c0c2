"""PartiQL for DynamoDB: statements in SQL's clothes that mean operations on items.

Owns: the grammar, what is wrong with a statement and in which words, and what a WHERE means for a table's keys (`planning`).
Offers: `parse`, `checked_parameters`, `plan_read`, `plan_key`, `plan_update`. Never: reads or writes anything. Conditions and
actions are trees of `expressions` and are compiled and checked there.
"""

from martlet.documents.dynamodb.partiql.planning import (
    Branch,
    Columns,
    Keyed,
    Keys,
    Read,
    check_where,
    missing_attributes,
    plan_exists,
    plan_key,
    plan_read,
    plan_update,
)
from martlet.documents.dynamodb.partiql.statements import (
    Column,
    Delete,
    Insert,
    Order,
    Select,
    Statement,
    Update,
    checked_parameters,
    parse,
)

__all__ = [
    "Branch",
    "Column",
    "Columns",
    "Delete",
    "Insert",
    "Keyed",
    "Keys",
    "Order",
    "Read",
    "Select",
    "Statement",
    "Update",
    "check_where",
    "checked_parameters",
    "missing_attributes",
    "parse",
    "plan_exists",
    "plan_key",
    "plan_read",
    "plan_update",
]
