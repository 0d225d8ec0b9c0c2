"""Mapping templates: a golden corpus of documented behaviour, and templates that mean harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import LimitExceeded
from martlet.gateway.vtl import JsonList, TemplateFailed, TemplateSyntax, compile_template
from martlet.gateway.vtl.values import Budget

PETS = {"pets": JsonList([{"name": "Rex", "age": 3}, {"name": "Bo", "age": 11}]), "owner": {"name": "Ann"}, "none": None}


def render(template: str, **variables: Any) -> str:
    return compile_template(template).render(variables)


GOLDEN = [
    # references: velocity.apache.org/engine/1.7/vtl-reference.html
    ("Hello $name!", "Hello Bo!"),
    ("${name}s", "Bos"),
    ("$!name $!nobody.", "Bo ."),
    ("[$nobody]", "[]"),
    ("$owner.name", "Ann"),
    ("${owner.name}x", "Annx"),
    ("$owner.get('name')", "Ann"),
    ("$owner['name']", "Ann"),
    ("$pets[0].name $pets.get(1).name", "Rex Bo"),
    ("$owner.name.", "Ann."),
    ("$5 costs $ and $$name", "$5 costs $ and $Bo"),
    ("$owner.nothing.of.this", ""),
    ("\\$name \\\\$name \\$nobody", "$name \\Bo \\$nobody"),
    ("\\#if \\#else", "#if #else"),
    # text that only looks like VTL
    ('{"$ref": "#/definitions/X", "a": "b#c"}', '{"": "#/definitions/X", "a": "b#c"}'),
    ("#1 #foo #-", "#1 #foo #-"),
    # comments and raw text
    ("a## gone\nb", "ab"),
    ("a#* gone\n *#b", "ab"),
    ("#[[$name #if]]#", "$name #if"),
    # set, kinds, arithmetic
    ("#set($x = 'a$name')$x", "a$name"),
    ('#set($x = "a$name")$x', "aBo"),
    ('#set($x = "say ""hi""")$x', 'say "hi"'),
    ("#set($x = 7 / 2)$x #set($x = -7 / 2)$x #set($x = -7 % 3)$x", "3-3-1"),
    ("#set($x = 7.0 / 2)$x", "3.5"),
    ("#set($x = 1 + 2 * 3 - 4)$x", "3"),
    ("#set($x = (1 + 2) * 3)$x", "9"),
    ("#set($x = 'a' + 1 + 'b')$x", "a1b"),
    ("#set($x = 5 / 0)[$x]", "[]"),
    ("#set($x = [1, 'b', [true]])$x", "[1, b, [true]]"),
    ("#set($x = {'a': 1, 'b': {'c': null}})$x", "{a=1, b={c=null}}"),
    ("#set($x = [3..1])$x #set($x = [-1..1])$x", "[3, 2, 1][-1, 0, 1]"),
    ("#set($owner.age = 40)$owner.age", "40"),
    ("#set($x = {})#set($x['a b'] = 1)$x", "{a b=1}"),
    ("#set($x = [1,2])#set($x[1] = 9)$x", "[1, 9]"),
    # truth and comparison
    ("#if($name)y#end#if($nobody)n#end#if(!$nobody)y#end", "yy"),
    ("#if(0)y#else n#end", "y"),
    ("#if($name == 'Bo' && 2 > 1)y#else n#end", "y"),
    ("#if($name eq 'Bo' and not false)y#end", "y"),
    ("#if(1 == 1.0)y#end#if('1' == 1)y#end", "yy"),
    ("#if($nobody == $null)y#end#if($nobody == '')y#end#if($nobody != 'x')y#end", "yyy"),
    ("#if(1 > 2)a#elseif(2 >= 2)b#{else}c#end", "b"),
    ("#if(false)a#{else}c#end", "c"),
    ("#if('a' < 'b')y#else n#end", " n"),
    # loops
    ("#foreach($p in $pets)$foreach.count:$p.name#if($foreach.hasNext),#end#end", "1:Rex,2:Bo"),
    ("#foreach($p in [1..3])$velocityCount$foreach.index#end", "102132"),
    ("#foreach($i in [1..9])#if($i == 3)#break#end$i#end", "12"),
    ("#foreach($k in $owner.keySet())$k=$owner.get($k)#end", "name=Ann"),
    ("#foreach($e in $owner.entrySet())$e.key=$e.value $e.getKey()#end", "name=Ann name"),
    ("#foreach($v in $owner)$v#end", "Ann"),
    ("#foreach($x in $nobody)x#end.", "."),
    ("#set($x = 1)#foreach($x in [5])$x#end$x", "51"),
    ("#foreach($a in [1,2])#foreach($b in [1,2])$foreach.parent.index$foreach.index #end#end", "00 01 10 11 "),
    ("a#stop b", "a"),
    # macros and defines
    ("#macro(two $a $b)<$a|$b>#end#two('x' 2)#two($name, 'z')", "<x|2><Bo|z>"),
    ("#define($block)[$x]#end#set($x = 1)$block#set($x = 2)$block", "[1][2]"),
    # methods
    ("$name.length() $name.toUpperCase() $name.contains('o')", "2 BO true"),
    ("$csv.split(',')[2] $csv.split(',').size()", "c 3"),
    ("$csv.replaceAll('[a-b],', '<$0>')", "<a,><b,>c"),
    ("$csv.replace(',', ';') $csv.substring(2) $csv.substring(0, 1) $csv.indexOf('c')", "a;b;c b,c a 4"),
    ("$csv.matches('a.*c') $csv.matches('b')", "true false"),
    ("$csv.concat('!').trim().startsWith('a')", "true"),
    ("#set($l = [])#set($ok = $l.add('x'))$ok$l.size()$l.isEmpty()$l.contains('x')", "true1falsetrue"),
    ("#set($m = {})$m.put('a', 1)$m.size()$m.containsKey('a')$m.getOrDefault('z', 'q')", "1trueq"),
    ("#set($Integer = 0)#set($x = $Integer.parseInt('12') + 1)$x", "13"),
    ("$name.nosuch() $name.nosuch", " "),
    # how values print
    ("$pets", '[{"name":"Rex","age":3},{"name":"Bo","age":11}]'),
    ("$owner $yes $half $big $tiny", "{name=Ann} true 0.5 1.5E10 1.0E-5"),
    # white space, as Velocity 1.7's parser has it
    ("  #set($x = 1)\n  $x\n", "  1\n"),
    ("#if(true)\n  a\n#end\nb", "  a\nb"),
    ("x #if(true) \n y #else \n#end z", "x  y  z"),
]


@pytest.mark.parametrize(("template", "printed"), GOLDEN)
def test_golden(template: str, printed: str) -> None:
    values = {**PETS, "owner": {"name": "Ann"}, "name": "Bo", "csv": "a,b,c", "yes": True}
    assert render(template, **values, half=0.5, big=1.5e10, tiny=1e-5) == printed


def test_a_template_of_the_kind_that_people_write() -> None:
    template = """
    #set($all = $input)
    {
      "items": [
        #foreach($pet in $all.pets)
        { "label": "$pet.name ($pet.age)", "old": #if($pet.age > 10)true#else false#end }#if($foreach.hasNext),#end
        #end
      ]
    }"""
    made = json.loads(render(template, input=PETS))
    assert made == {"items": [{"label": "Rex (3)", "old": False}, {"label": "Bo (11)", "old": True}]}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a\n#if(true) b", "line 2"),
        ("#foreach($x of $y)#end", "line 1"),
        ("#set(x = 1)", "line 1"),
        ("#set($x 1)", "line 1"),
        ('#set($x = "abc)', "line 1"),
        ("#end", "line 1"),
        ("\n\n#include('/etc/passwd')", "line 3"),
        ("#parse('x')", "line 1"),
        ("#evaluate('x')", "line 1"),
        ("#if(" + "(" * 5000 + "1" + ")" * 5000 + ")#end", "too deep"),
        ("#if(" + "!" * 5000 + "1)#end", "too deep"),
        ("#if(true)" * 200 + "#end" * 200, "too deep"),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(template: str, line: str) -> None:
    with pytest.raises(TemplateSyntax, match=line):
        compile_template(template)


BOMBS = [
    "#set($x = 'aaaaaaaaaa')#foreach($i in [1..1000])#set($x = $x + $x)#end",
    "#foreach($i in [1..1000])#foreach($j in [1..1000])x#end#end",
    "#foreach($i in [1..1001])x#end",
    "#set($x = [1..2000000000])",
    "#set($x = 9)#foreach($i in [1..1000])#set($x = $x * $x)#end",
    "#set($l = [])#set($l2 = $l.add($l))$l",
    "#set($m = {})#set($m.self = $m)$m",
    "#macro(again)#again()#end#again()",
    "#define($again)$again#end$again",
    "#set($x = 'a')#foreach($i in [1..900])#set($x = $x.replaceAll('a', 'aa'))#end",
    "#set($x = 'a')#foreach($i in [1..900])#set($x = $x.replace('a', 'aa'))#end",
    "#set($x = 'a')#foreach($i in [1..900])#set($x = \"$x$x\")#end",
    "#set($l = [1])#foreach($i in [1..900])#set($k = $l.addAll($l))#end",
    "#set($x = [])#foreach($i in [1..200])#set($x = [$x, $x])#end$x",
    "$list.get(5)",
    "$list[99]",
    "$text.substring(9)",
    "$text.replaceAll('(', 'x')",
    "$text.replaceAll('(a)', '$7')",
    "$text.matches('(?<=a)b')",
]


@pytest.mark.parametrize("template", BOMBS)
def test_bombs_and_wrong_calls_fail_and_end(template: str) -> None:
    with pytest.raises(TemplateFailed):
        render(template, list=[1], text="abc")


def test_a_pattern_that_backtracks_elsewhere_is_linear_here() -> None:
    assert render("$text.matches('(a+)+b')", text="a" * 5000) == "false"


def test_templates_have_a_size() -> None:
    with pytest.raises(LimitExceeded, match="mapping_template_bytes"):
        compile_template("x" * 400_000)


@pytest.mark.parametrize(
    "template",
    [
        "$text.__class__",
        "$text.__class__.__mro__",
        "$text.format('x')",
        "$list.__len__()",
        "$host.secret",
        "$host.__init__.__globals__",
        "$foreach.__class__",
        "#foreach($x in [1])$foreach.__class__$foreach.call#end",
        "$text.getClass().forName('java.lang.Runtime')",
    ],
)
def test_nothing_of_python_is_reachable(template: str) -> None:
    class Sly:
        secret = "s3cret"

    assert render(template, text="abc", list=[1], host=Sly()) == ""


def test_output_is_counted_even_if_it_is_thrown_away() -> None:
    with pytest.raises(TemplateFailed, match="template_output_bytes"):
        compile_template('#foreach($i in [1..100])#set($x = "$text")#end').render(
            {"text": "x" * 1000}, Budget(characters=50_000)
        )


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="$#{}()[]!.'\"\\abif elsndforhcutmp=+,1\n", max_size=60))
def test_any_text_renders_or_is_refused_by_name(text: str) -> None:
    try:
        compile_template(text).render({"a": "x"})
    except (TemplateSyntax, TemplateFailed):
        pass
