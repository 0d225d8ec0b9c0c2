"""Apache Velocity 1.7's template language as API Gateway's mapping templates use it. Pure: text and values in, text out.

Offers: `compile_template` (once a template) and `Template.render` (once a request) under limits: steps, output, rounds of a
loop. `parse` reads, `run` renders, `methods` is the closed list of Java methods that values have; host objects ($input,
$util) are given by the caller as `Host`. Never: reaches an attribute of a Python object; names resolve in dicts, in that
closed list and in `Host.call`, and nowhere else.
https://velocity.apache.org/engine/1.7/vtl-reference.html
"""

from __future__ import annotations

from martlet.gateway.vtl.parse import TemplateSyntax
from martlet.gateway.vtl.run import Template, compile_template
from martlet.gateway.vtl.values import Host, JsonList, TemplateFailed, to_text

__all__ = ["Host", "JsonList", "Template", "TemplateFailed", "TemplateSyntax", "compile_template", "to_text"]
