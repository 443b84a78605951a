"""Constructions of chat templates, one by one: every statement, filter, test, method and rule of white space that published
templates use, and what goes wrong with each. For tools/check_peers_templates.py, the vectors and the fuzz corpus."""

# What the constructions are given.
VARIABLES = {
    "messages": [{"role": "system", "content": " hi "}, {"role": "user", "content": "é<b>'\"\n"}],
    "n": None, "t": True, "x": 3, "f": 1.5,
    "d": {"a": 1, "b": [1, 2, {"c": None}], "items": 9},
    "s": "Hello World", "l": [3, 1, 2], "tools": None, "bos_token": "<s>",
}
TIME = (2026, 3, 7, 9, 5, 3)  # what strftime_now is given

# One a line, each printed.
EXPRESSIONS = r"""
1+2*3-4//3%2
7//2, -7//2, 7%-3, -7%3, 7.5//2, -7.5%2, 2**10, 2**-1, 2**0.5, 1/3
1e16, 1e15, 1.0, 0.1+0.2, 1e-5, 0.0001, 123456789.123, 1e22, 5e-324, 1.5e300*1e10
[1,'a',"it's",'q"',none,true,1.5,(1,),(),{}]
{'a':[1,{'b':none}], 2:'x', (1,2):3, none:4}
'a' 'b' "c"
'\x41\u00e9\n\t\\ \d \'' ~ "\""
'é\é'
s[0], s[-1], s[1:4], s[::-1], s[::2], s[-3:], s[:100], s[5:2], s[10]
l[0], l[-1], l[::-1], l[1:], l[5] , l[-5:]
messages[0].role, messages[0]['content'], messages[-1].content[1:], messages[::-1][0].role
messages[0].foo
messages[0].foo.bar
foo
foo.bar
foo['bar']
foo + 1
foo ~ 'x'
foo == bar, foo != bar, foo == none, not foo
foo|length, foo|list, foo|string, foo|upper, foo|trim
foo|default('d'), none|default('d'), none|default('d', true), ''|d('e', boolean=true), foo|d
foo is defined, foo is undefined, n is none, t is true, x is integer, f is float, x is number, s is string, d is mapping, l is sequence, l is iterable, foo is iterable, foo is sequence, x is iterable, t is boolean, t is integer
x is odd, x is even, x is divisibleby 3, x is divisibleby(2), x is in l, x is in(l), x is eq 3, x is equalto 3, x is gt 2, s is lower, s is upper, 'ABC' is upper, x is sameas 3
x is not none and x is not odd
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0 == true, 'a' < 'b', [1,2] < [1,3], (1,2) < (1,2,3)
1 < 'a'
none < 1
'a' in s, 'ello' in s, 'x' not in s, 3 in l, 'a' in d, 'zz' in d, 3 not in l
1 in s
x if t else 'no', x if not t else 'no', x if false
(x if false) is defined
t and x, f or x, none or '', 0 and x, not x
'a' ~ 1 ~ none ~ true ~ [1] ~ 1.0
'a' + 'b', [1]+[2], (1,)+(2,), 'ab'*3, [1]*2, 3*'x'
'a' + 1
1 + none
[1] + (2,)
-x, +x, -(-x), - x ** 2, 2 ** 3 ** 2
s.upper(), s.lower(), s.title(), s.swapcase(), s.capitalize(), 'hELLO wORLD'.capitalize()
s.split(), s.split('o'), s.split('o', 1), s.rsplit('o', 1), ' a  b '.split(), ' a  b c '.split(none, 1), ' a  b c '.rsplit(none, 1), 'a,b,,c'.split(','), ''.split(), ''.split(',')
s.split('')
s.find('o'), s.find('zz'), s.rfind('o'), s.index('o'), s.count('o'), s.count(''), s.find('o', 5), s.find('o', -3), s.find('', 20), s.find('', 11)
s.index('zz')
s.startswith('Hell'), s.endswith('ld'), s.startswith(('x','H')), s.startswith('ell', 1), s.endswith('l', 0, 3)
s.replace('o','0'), s.replace('o','0',1), 'abc'.replace('','-'), 'abc'.replace('','-',2), s.replace('l','')
'  x '.strip() ~ '|', '  x '.lstrip() ~ '|', '  x '.rstrip() ~ '|', 'xxaxx'.strip('x'), 'abcba'.strip('ab'), '\n\u00a0 x\u3000'.strip() ~ '|'
','.join(['a','b']), ''.join(l|map('string')), ', '.join('abc')
','.join([1])
'a\nb\r\nc\u2028d\n'.splitlines(), 'a\nb\n'.splitlines(true), ''.splitlines()
'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('=')
'abc'.isalpha(), 'ab1'.isalnum(), '12'.isdigit(), '²'.isdigit(), '½'.isnumeric(), ' \t'.isspace(), 'Ab'.istitle(), 'aB'.isupper(), ''.isalpha(), ''.isascii(), 'é'.isascii(), 'a\n'.isprintable()
'ab'.center(7) ~ '|', 'abc'.center(8,'*'), 'ab'.ljust(5,'.'), 'ab'.rjust(5), '-5'.zfill(4), '5'.zfill(3), 'prefix_x'.removeprefix('prefix_'), 'x.py'.removesuffix('.py')
'{} {}'.format(1, 'a'), '{1} {0}'.format(1, 2), '{a}'.format(a=5), '{{}}'.format()
'%s %d %05.2f %r %x %%' % ('a', 5, 3.14159, 'q', 255), '%s' % 'x', '%(a)s' % {'a': 1}, '%5s|%-5s|' % ('a','b'), '%+d' % 5
'%s %s' % 'x'
'%d' % 'x'
'%s' % (1,2)
'ß'.upper(), 'İ'.lower(), 'ΑΣ'.lower(), 'ΑΣΑ'.lower(), 'ﬁx'.title(), 'ǆ'.upper(), 'ǆ'.title(), 'straße'.capitalize(), 'éÀ'.swapcase()
d['items']
d.get('a'), d.get('q'), d.get('q', 5), d.keys()|list, d.values()|list, d.items()|list, d|length, d|list
d.keys(), d.values(), d.items()
d.get([])
d.a, d['a'], d.q, d[none]
d.update({'a':2})
l.append(4)
l.count(1), l.index(2)
l.index(9)
s.__class__
s.foo
x.foo
none.foo
d|items|list, d|dictsort, {'b':1,'A':2,'a':0}|dictsort, {'b':1,'A':2}|dictsort(true), {'b':1,'A':2}|dictsort(by='value'), {'b':1,'a':2}|dictsort(reverse=true)
l|sort, l|sort(reverse=true), ['b','A','c']|sort, ['b','A','c']|sort(case_sensitive=true), messages|sort(attribute='role')|map(attribute='role')|list
['a',1]|sort
l|first, l|last, []|first, []|last, s|first, s|last, d|first, l|max, l|min, l|sum, []|max, [[1],[2]]|sum(start=[])
l|join, l|join(', '), messages|join(', ', attribute='role'), s|join('-'), [none, foo, 1.5]|join('|')
l|reverse|list, s|reverse, l|unique|list, ['a','A','b']|unique|list, [1,1.0,true]|unique|list
l|map('string')|list, messages|map(attribute='role')|list, messages|map(attribute='zz', default='D')|list, messages|map('length')|list, ['a b']|map('replace','a','c')|list, messages|map(attribute='content')|map('trim')|list
messages|selectattr('role','equalto','user')|list|length, messages|selectattr('role','==','user')|map(attribute='role')|list, messages|rejectattr('role','in',['user'])|map(attribute='role')|list, messages|selectattr('role')|list|length, messages|selectattr('zz')|list, messages|selectattr('zz','defined')|list, messages|selectattr('zz','undefined')|list|length
l|select('odd')|list, l|reject('gt', 1)|list, [0,1,none,'']|select|list, [0,1]|reject|list
messages|map(attribute='role')|length
messages|selectattr('role','equalto','user')|first is mapping
(messages|map(attribute='role')|list)[0]
'abc'|list, 5|string, [1,2]|string, 'x'|string
5|list
5|length
s|length, l|count, d|length, 'é€𝄞'|length
3.7|int, '12'|int, ' 12 '|int, '1_000'|int, 'x'|int, 'x'|int(5), '3.9'|int, '0x1F'|int(base=16), '1e3'|int, none|int, true|int, ''|int, -3.7|int
'1.5'|float, 'x'|float, 3|float, 'inf'|float, none|float(2.5), '1e3'|float, ' 2 '|float
2.5|round, 3.5|round, 2.675|round(2), 2.3|round(0,'ceil'), 2.7|round(method='floor'), 5|round, 25|round(-1), 35|round(-1), 1234.567|round(-2), 42.55|round(1,'floor'), -2.5|round
-5|abs, (-5)|abs, -5.5|abs, 5|abs
'a'|abs
s|upper|lower|title, 'foo bar-baz (qux) [x] <y> {z'|title, 'é-ß'|title, s|capitalize, 'x'|center(5) ~ '|', 'x'|center ~ '|'
'a\nb\n\nc'|indent, 'a\nb\n\nc'|indent(2, true), 'a\nb\n\nc'|indent(2, blank=true), 'a\nb'|indent('>>'), ''|indent ~ '|', 'a\n'|indent ~ '|', 'a'|indent(4, true)
d|tojson, messages|tojson, 'é<>&\'"\n\u2028\x7f\x01/'|tojson, 1.0|tojson, 1e100|tojson, none|tojson, true|tojson, []|tojson, {}|tojson, [[],{}]|tojson(indent=2), (1,2)|tojson, {1:2, none:3, true:4, 1.5:6}|tojson
d|tojson(indent=4)
d|tojson(separators=(',',':')), {'b':1,'a':2}|tojson(sort_keys=true), 'é𝄞\x7f'|tojson(ensure_ascii=true), d|tojson(indent=2, separators=(',', ': ')), d|tojson(indent=none), d|tojson(indent='\t')
foo|tojson
range(3)|tojson
{(1,2):3}|tojson
range(3)|list, range(1,7,2)|list, range(5,0,-2)|list, range(3), range(0,10,3), range(5)[1:4:2]|list, range(3)|length, range(3)[1], range(5)[::-1]|list
range(100001)
range(0,1,0)
dict(a=1,b=2), dict([('x',1)]), dict({'q':1}, r=2), namespace(a=1).a, namespace({'z':5}).z
namespace(a=1).b
raise_exception('boom é ' ~ x)
raise_exception()
strftime_now('%Y-%m-%d %H:%M:%S %B %b %A %a %y %j %d %-d %e %p %I %%'), strftime_now('%d %b %Y')
'a'|replace('a','b'), 'aaa'|replace('a','b',2), 5|replace(5,6), s|replace('o', foo)
s|trim('Hd'), 5|trim, none|trim, '  a '|trim ~ '|'
'<a&b>'|e, '<a>'|escape, ('<a>'|safe) ~ '<b>', ('<a>'|safe) + '<b>', '<b>' + ('<a>'|safe), '<a>'|e|e, '<a>'|forceescape|forceescape, ['<'|safe], '<a>'|safe|length
'hello world foo'|truncate(9), 'hello world foo'|truncate(9, true), 'hello world'|truncate(9), 'hello world foo'|truncate(9, leeway=0), 'a b'|wordcount, 'foo_bar, b-z é'|wordcount
'%s-%s'|format('a', 1), '%(x)s'|format(x=3)
[1,2,3,4,5]|batch(2)|list, [1,2,3]|batch(2,'x')|list
d|attr('get') is callable, d|attr('a') is defined, range is callable, foo is callable, s is callable
s is filter, 'upper' is filter, 'defined' is test, 'odd' is test
x is foo
x|foo
x|map('foo')|list
x is
foo()
s()
(1)(2)
{'a':1}.a, [1,2].0, 'abc'.1
[[1,2],[3]]|sum(start=[])
messages|sum(attribute='zz')
[1,2]|sum(start=10), [{'a':1},{'a':2}]|sum(attribute='a'), [1.5,2]|sum
['a']|sum
[{'a':'x'},{'a':'B'}]|max(attribute='a'), ['a','B']|max, ['a','B']|max(case_sensitive=true), [{'a':2},{'a':1}]|min(attribute='a')
9223372036854775807, -9223372036854775807 - 1
0x1f, 0b11, 0o17, 1_000, 1_0.5, 1e3, 1E-2
00, 0
007
true, True, false, False, none, None
[1,2,], {'a':1,}, (1,2,)
s['a']
l['a']
l[1.0]
l[true]
d[true]
{1:'a'}[true], {1:'a'}[1.0]
{[1]:2}
s[::0]
s['a':]
foo[1:]
d[1:]
''.join(['a', foo])
not not x, not x == 3
x == 3 and not n
'a' if 'b' if false else 'c'
1 if 2 if 3 else 4 else 5
loop
x . y
s . upper ( )
s|upper ()
(s|upper)|lower
s|upper ~ 'x'
-1|abs
2 - -1
1 -1
s.split('o')[0].upper()[1:]
[l, d][0][1]
(1, 2) == [1, 2], {} == {}, [1] == [1.0], 'a' == 1, none == false, {'a':1,'b':2} == {'b':2,'a':1}
namespace() == namespace()
d == d
"a\
b"
'\q', '\1', '\101', '\0' | length
'\u12'
'\N{DASH}'
[1,2,3][-1], [1,2,3][-4]
'x'.upper().foo
messages|last|length, (messages|last).role
messages[0] is mapping, messages is mapping
messages[0]|length
loop.index
caller()
1 is 1
x is defined and x > 2 or false
x|default(5)|string|length
foo|default(bar|default('z'))
[x, foo]|first, [foo]|first is undefined
{'content': none}.content is none, {}.content is none
'%.3s|%5.1f' % ('abcdef', 2.25)
['x']|join(1)
'a' 'b'|upper
[3,1]|sort|first + 1
1.5 is integer, 1.5|int is integer, '1' is number
'a' < 1
x is odd and x is number
('<'|e) is escaped, 'x' is escaped, t is false, false is false, n is false, x is ne 2, x is lt 4, x is le 3, x is ge 3, x is gt 2, x is lessthan 4, x is greaterthan 2, f is float, x is float
[1,2,3]|select('==', 2)|list, [1,2,3]|reject('>=', 2)|list, [1,2,3]|select('<', 3)|list, [1,2,3]|select('<=', 1)|list, [1,2,3]|select('>', 1)|list, [1,2,3]|select('!=', 1)|list
'A1' is upper, 'a1' is lower, 'Ab' is upper, 1 is lower, '' is upper, n is sameas none, l is sameas l, l is sameas 3
5 is filter, 5 is test, 'safe' is filter, 'number' is test
(x, f) | max
3 | string + 'a'
'a' in none
'a' in foo
none in [none]
foo in [1]
[foo] == [bar]
foo < 1
foo|int
foo|float
foo|round
foo|abs
foo|first is undefined
foo|last is undefined
foo|join
foo|sum
foo|tojson
foo|reverse|list
foo|sort
foo|unique|list
foo|map('upper')|list
foo|selectattr('x')|list
foo|replace('a','b')|length
foo|indent
foo|items|list
foo|dictsort
foo|title|length
foo|wordcount
foo|string|length
foo|batch(2)|list
foo|min is undefined
foo|attr('x')
none|first
none|length
none|upper
none|list
none|items|list
5|upper, 1.5|upper, [1]|upper, true|lower
5|first
'ab'|batch(1)|list
true + true, true * 3, true / 2, -true, true == 1, true in [1], false < true
0 ** -1
1 / 0
1 // 0
1 % 0
1.0 % 0
5 % 3.0, -5 % 3.0, 5.5 // 2, -5.5 // 2, 1e308 * 10
'é'.upper() ~ 'é'|length
'日本語'[1], '日本語'[-1], '日本語'[::-1], '日本語'[0:2], '日本語'.find('語'), '日本語'|list, '日本語'|reverse
["é\x00\x1f\x7f\xa0\u200b\U0001f600\ue000"]
'a'.find('a', none, none), 'abc'.find('c', 1, 2)
'x' * -1, [1] * 0 , 'ab' * true
d.items()|first, d.items()|length, d.keys()|first
d.items()[0]
d.items()|list|last
(d.items()|list)[0][0]
[1,2,3]|select('in', [2,3])|list
[1,2,3]|select('divisibleby', 3)|list
[1,2,3]|map('round', 1)|list
['1','2']|map('int')|list
['a','b']|map('upper')|join(',')
'abc'|map('upper')|join
d|map('upper')|join
d|join(',')
messages|map(attribute='content.0')|list
messages|map(attribute=0)|list
[[1,2],[3,4]]|map(attribute=0)|list
[[1,2],[3,4]]|map(attribute='1')|list
[[3,'b'],[1,'a']]|sort(attribute=0)|list
[[3,'b'],[1,'a'],[1,'B']]|sort(attribute='0,1')
'  multi   space '.split(' ')
'a.b.c'.rsplit('.', 1)[0]
'a' is in 'abc'
'a' is in(['a'])
x is not in [1,2]
x not in [1,2] and x in [3]
not x in [1]
not (x in [1])
s is string is true
(1,2,3)[1:], (1,2)[::-1], ()|length, (1)|string, (1,)|string
{'a': 1}|string, {}|string
messages|string
'line1\nline2'|replace('\n', '\\n')
'tab\there'
'a\u2028b'|tojson
1.0 ~ '', 1e20 ~ '', 123456789012345680.0 ~ '', -0.0 ~ '', 1.5e-7 ~ '', 100000.0 ~ ''
s.upper is callable
namespace(x=1)
super()
[] is iterable, {} is sequence, () is sequence, range(2) is sequence, range(2) is iterable, d.keys() is sequence, d.items() is iterable
s is mapping or s is iterable
s is iterable and s is not mapping
d.pop('a')
d.setdefault('a', 1)
d.copy().a
l.copy()
l.sort()
'a' 'b' + 'c'
{'a': x if t else 0}
[x for x in l]
lambda: 1
x = 3
{{ x }}
x; y
x,
,
()
(,)
[,]
x x
'unterminated
x | 
x is not
f(
{'a' 1}
s[
"%s" % none, "%s" % foo, "%s" % [1], "%s" % {'a':1}
'%%' % (), '%' % ()
'%d' % 3.9, '%i' % true, '%f' % 1, '%e' % 12345.678, '%g' % 0.0001, '%x' % 255, '%X' % 255, '%o' % 8, '%#x' % 255, '%+.1f' % 2.25, '% d' % 5
'%x' % 1.5
'%q' % 1
'%(a' % {'a':1}
'%(b)s' % {'a':1}
l.append
'%c%c' % ('a', 98)
""".strip("\n").split("\n")

STATEMENTS = r"""
{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem.role }}|{{ loop.nextitem.role }}{% endfor %}
{% for m in messages %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% else %}none{% endfor %}
{% for m in [] %}x{% else %}none{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.role }}{{ loop.length }}{% else %}none{% endfor %}
{% for m in messages if m.role == 'zz' %}x{% else %}none{{ m }}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}
{% for (a, b), c in [((1,2),3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1,2,3)] %}{{ a }}{% endfor %}
{% for a in 5 %}{% endfor %}
{% for a in none %}{% endfor %}
{% for a in foo %}x{% else %}e{% endfor %}
{% for c in 'héy' %}[{{ c }}]{% endfor %}
{% for i in range(10) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% break %}
{% for i in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}
{% for i in range(3) %}{% set y = i %}{{ y }}{% endfor %}{{ y is defined }}
{% set y = 0 %}{% for i in range(3) %}{{ y }}{% set y = i %}{{ y }}{% endfor %}{{ y }}
{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{% set ns.b = 'q' %}{{ ns.b }}{{ ns.c is defined }}
{% set d.a = 5 %}
{% set foo.a = 5 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set a = 1, 2 %}{{ a }}
{% set x %}hello {{ s }}{% endset %}{{ x|upper }}
{% set x | upper | replace('H', 'J') %}hello{% endset %}{{ x }}
{% set x %}{% set inner = 5 %}{{ inner }}{% endset %}{{ x }}{{ inner is defined }}
{% if x > 2 %}a{% elif x > 1 %}b{% else %}c{% endif %}
{% if n %}a{% elif x == 3 %}b{% else %}c{% endif %}
{% if n %}a{% elif foo %}b{% else %}c{% endif %}
{% if t %}{% set q = 1 %}{% endif %}{{ q }}
{% macro m(a, b=2, c='z') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='k') }}{{ m() }}{{ m(b=5, a=1) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
{% macro m(a, b) %}{% if b is defined %}{{ b }}{% else %}no{% endif %}{% endmacro %}{{ m(1) }}
{% macro m(n) %}{% if n > 0 %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}
{% set z = 1 %}{% macro m() %}{{ z }}{% endmacro %}{% set z = 2 %}{{ m() }}
{% for i in range(2) %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}
{% macro outer() %}<{{ caller() }}>{% endmacro %}{% call outer() %}body {{ s }}{% endcall %}
{% macro outer() %}<{{ caller(1, 2) }}>{% endmacro %}{% call(a, b) outer() %}{{ a }}+{{ b }}{% endcall %}
{% macro outer() %}x{% endmacro %}{% call outer() %}body{% endcall %}
{% macro outer() %}{{ caller is defined }}{% endmacro %}{{ outer() }}
{% macro m() %}{% set q = 5 %}{{ q }}{% endmacro %}{{ m() }}{{ q is defined }}
{{ m() }}{% macro m() %}x{% endmacro %}
{% macro m(x) %}{% for i in x %}{{ loop.index }}{% endfor %}{% endmacro %}{% for j in l %}{{ m([1,2]) }}{{ loop.index }}{% endfor %}
{% macro m(**kw) %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% filter upper %}hello {{ s }}{% endfilter %}
{% filter upper|replace('H','J') %}hello{% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
{% with %}{% set a = 1 %}{% endwith %}{{ a is defined }}
{% with a = 1, b = a %}{{ b }}{% endwith %}
{% raw %}{{ x }}{% if %}{% endraw %}|
{% raw -%}  {{ x }}  {%- endraw %} |
  {% raw %}
 a
  {% endraw %}
b
{# comment #}a{# multi
line #}b
a {#- x -#} b
  {# c #}
  b
  {% if t %}
    a
  {% endif %}
  {%- if t -%}
  {%- endif -%}
a
  {%+ if t %}
  {%+ endif +%}
x {% if t %} a {% endif %} y
{{ x }}
{{ s }}
{{ x -}}   
 y
  {{- x }} z
{% if t %}
{% endif %}
{%- for i in l %}
  {{ i }}
{%- endfor %}
{% generation %}abc{{ x }}{% set qq = 1 %}{% endgeneration %}{{ qq is defined }}
{% for m in l %}{% generation %}{{ m }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% for m in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% print x, s %}
{% do x %}
{% include 'a' %}
{% extends 'x' %}
{% import 'a' as b %}
{% unknown %}
{% if %}{% endif %}
{% for %}{% endfor %}
{% for x %}{% endfor %}
{% set %}
{% set x = %}
{% set 1 = 2 %}
{% set x.y.z = 2 %}
{% set x %}
{{ 
{{ x
{% if
{# x
{% raw %}x
}} %} #}
{ { x } }
{{ '}}' }}{{ "%}" }}
{{ {'a': {'b': 1}} }}
{{ {'a': {'b': 1}}['a']['b'] }}
{% if t: %}x{% endif %}
{% for i in l: %}{{ i }}{% endfor %}
{% for i in l %}{{ loop.cycle('a','b') }}{{ loop.changed(i > 1) }}{{ loop.depth }}{% endfor %}
{% for i in l %}{{ loop }}{% endfor %}
{% for i in l|map('string') %}{{ i }}{{ loop.last }}{{ loop.length }}{% endfor %}
{% set g = l|map('string') %}{{ g|list }}{{ g|list }}
{% set g = l|select('odd') %}{{ g|first }}{{ g|list }}
{% for m in messages %}{% if loop.first and m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}
{% set ns = namespace(x=[]) %}{% for i in l %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}
{% set messages = messages[1:] %}{{ messages|length }}
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}{{ loop_messages|length }}{{ system_message }}
{% for i in l %}{% if i == 1 %}{% set z = 5 %}{% endif %}{{ z }}{% endfor %}
{% for i in l %}{% if z is not defined %}{% set z = i %}{% endif %}{{ z }}{% endfor %}
{% set z = 9 %}{% for i in l %}{% if i == 1 %}{% set z = 5 %}{% endif %}{{ z }}{% endfor %}{{ z }}
{% macro m() %}{{ loop.index }}{% endmacro %}{% for i in l %}{{ m() }}{% endfor %}
{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}
{% for i in l %}{{ loop.index if not loop.last else 'end' }}{{ ", " if not loop.last }}{% endfor %}
{% if x is defined and x is not none %}{{ x }}{% endif %}
{%if x%}{{x}}{%endif%}
{{x}}{{-x-}}{{x}}
{%- set a = 1 -%}
{%- if a %}1{% endif -%}
 q
{{ raise_exception('x') if false }}ok
{% for i in l %}{% set l = [] %}{{ i }}{{ l }}{% endfor %}{{ l }}
{{ (messages|first).content|trim ~ '\n' }}
{% set content %}{{ messages[1].content }}{% endset %}{{ content|length }}
{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}{{ m.content }}{% endif %}{% endfor %}
{% macro f(x, depth=0) %}{% if x is mapping %}{% for k, v in x.items() %}{{ '  ' * depth }}{{ k }}:{{ f(v, depth + 1) }}{% endfor %}{% elif x is iterable and x is not string %}{% for i in x %}{{ f(i, depth + 1) }}{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{{ f(d) }}
{%- macro g(p) -%}{%- if p.a %}{{ p.a }}{%- endif -%}{%- endmacro -%}{{ g(d) }}|
{{ m(*[1,2]) }}{% macro m(a,b) %}{{ a }}{{ b }}{% endmacro %}
{% macro m(a,b,c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(*[1,2], **{'c': 3}) }}{{ m(0, *[1], c=9) }}
{{ dict(**{'a':1}) }}
{% set caller = 3 %}{{ caller }}
{% for item in d %}{{ item }},{% endfor %}
{% for item in d.values() %}{{ item }},{% endfor %}
{% for i in (1,2) %}{{ i }}{% endfor %}{% for i in 1,2 %}{{ i }}{% endfor %}
{% for i in l if i > 1 and loop %}x{% endfor %}
{% if 1 if t else 0 %}x{% endif %}
{% set x = 1 if t else 2 %}{{ x }}
{% for i in l if t else [] %}{% endfor %}
{{ m }}{% macro m() %}{% endmacro %}{{ m is callable }}
{% macro m() %}{% endmacro %}{{ m }}
{% set _x = 1 %}{{ _x }}
{% set for = 1 %}{{ for }}
{{ if }}
{{ not }}
{{ in }}
{{ is }}
{{ and }}
{%  if   t   %}x{%   endif   %}
{%
if t
%}x{%
endif
%}
{% else %}
{% if t %}x{% endfor %}
{% set a = b = 1 %}
{% set (a, b) = (1, 2) %}{{ a }}{{ b }}
{% set [a, b] = [1, 2] %}{{ a }}
{% if x -%} a {%- endif %}
{#- c -#}
 {#+ c +#}
 b
a{% if t %}
b{{ x }}
c
{% for i in l %}
{{ i }}
{% endfor %}
end
{%- for i in l -%}
    {{ i }}
{%- endfor -%}
""".strip("\n").split("\n")

# Over several lines: white space.
LAYOUTS = r"""
  {% raw %}
 a
  {% endraw %}
b
@@
{# comment #}a{# multi
line #}b
@@
  {# c #}
  b
@@
  {% if t %}
    a
  {% endif %}
b
@@
  {%- if t -%}
    a
  {%- endif -%}
b
@@
a
  {%+ if t %}
    a
  {%+ endif +%}
b
@@
{{ s }}

{{ x -}}   
 y
  {{- x }} z
@@
{% if t %}

a

{% endif %}

a
@@
a
{%- for i in l %}
  {{ i }}
{%- endfor %}
b
@@
a

{#- c -#}

b
@@
 a {#+ c +#}
 b
@@
a{% if t %}
{% endif %}
b{{ x }}
c
@@
{% for i in l %}
{{ i }}
{% endfor %}
end
@@
{%- for i in l -%}
    {{ i }}
{%- endfor -%}
end
@@
{%
if t
%}x{%
endif
%}
@@
  {{ x }}
	{% if t %}	
  x
	{%endif%}  
 q
@@
a   {% if t %}b{% endif %}   

   {% set q = 1 %}

c
@@
{% set a %}
 x
 {% endset %}
[{{ a }}]
@@
{% macro m() %}
  x
{% endmacro %}
[{{ m() }}]
@@
{%- macro m() -%}
  x
{%- endmacro -%}
[{{ m() }}]
@@
 {% raw -%}
   x
 {%- endraw -%}
 y
@@
x
 {% raw +%}
   x
 {% endraw +%}
 y
@@
    {%- if t %}
        {{- s + '\n' }}
    {%- endif %}
{{- '<|x|>' }}
""".strip("\n").split("\n@@\n")


def cases():
    layouts = LAYOUTS + [c + "\n" for c in LAYOUTS] + [c + "\n\n" for c in LAYOUTS] + [c.replace("\n", "\r\n") for c in LAYOUTS]
    return ["{{ %s }}" % e for e in EXPRESSIONS] + STATEMENTS + layouts
