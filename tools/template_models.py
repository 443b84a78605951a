"""Chat templates written for the checks: each does, with the same means, what a published template of its kind does."""

TULU = """\
{{ bos_token }}{% for message in messages %}
{% if message['role'] in ['system', 'user'] %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>\\n' }}
{% endif %}
{% endfor %}
"""

OLMO2 = """\
{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\\n' ~ m.content ~ '\\n' }}
{%- elif m.role == 'user' %}{{ '<|user|>\\n' ~ m.content ~ '\\n' }}
{%- elif m.role == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\\n' ~ m.content ~ eos_token ~ '\\n' }}
{%- else %}{{ '<|assistant|>\\n' ~ m.content ~ eos_token }}{% endif %}{% endif %}
{%- if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"""

CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Thinking that is cut from older answers, tools as lines of JSON, the last question found from the end.
QWEN3 = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages and messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Functions\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string
        and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or thoughts) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""

# Roles that must alternate, the system's words before the first or last question.
MIXTRAL = r"""
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate: message ' ~ loop.index ~ ' is ' ~ message.role) }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported') }}
    {%- endif %}
{%- endfor %}
"""

# Older style: numbers of turns, block sets and white space by comments.
LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}\
{% elif use_default_prompt == true and not '<<SYS>>' in messages[0]['content'] %}{% set loop_messages = messages %}\
{% set system_message = 'Be helpful.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}\
{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'system' %}\
{{ '<<SYS>>\\n' + content.strip() + '\\n<</SYS>>\\n\\n' }}{% elif message['role'] == 'assistant' %}\
{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

# Dates, tools in the first question, results as JSON where they are no text.
LLAMA3 = r"""
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}

{#- The system's words come out first. #}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls|length != 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}{{- ", " }}{%- endif %}
            {%- endfor %}
            {{- ")" }}
        {%- else %}
            {{- '{"name": "' + tool_call.name + '", ' + '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

# Tools as Python signatures, by recursive macros; numbered calls and results.
COMMAND_R = r"""
{%- macro type_name(spec) -%}
    {%- if spec.type is string -%}
        {%- set names = {'string': 'str', 'integer': 'int', 'number': 'float', 'boolean': 'bool'} -%}
        {%- if spec.type in names -%}{{ names[spec.type] }}
        {%- elif spec.type == 'array' and spec['items'] is mapping -%}List[{{ type_name(spec['items']) }}]
        {%- elif spec.type == 'object' -%}{% if spec.properties %}Dict[str, {{ spec.properties | dictsort | map('first') | join(' or ') }}]
            {%- else %}Dict{% endif %}
        {%- else -%}{{ spec.type | capitalize }}
        {%- endif -%}
    {%- elif spec.oneOf -%}Union[{% for one in spec.oneOf %}{{ type_name(one) }}{{ ', ' if not loop.last }}{% endfor %}]
    {%- else -%}Any
    {%- endif -%}
{%- endmacro -%}
{%- macro signature(tool) -%}
    {%- set f = tool.function if tool.function is defined else tool -%}
    def {{ f.name }}(
    {%- for name, spec in f.parameters.properties.items() -%}
        {{ name }}: {% if name not in (f.parameters.required | default([])) %}Optional[{{ type_name(spec) }}] = None
        {%- else %}{{ type_name(spec) }}{% endif %}
        {%- if not loop.last %}, {% endif %}
    {%- endfor -%}
    ) -> List[Dict]:
    """ + '"""' + r"""{{ f.description | default('', true) | trim | indent(4) }}""" + '"""' + r"""
{%- endmacro -%}
{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}
{%- else %}{% set loop_messages = messages %}{% set system = '## Task\nHelp.' %}{% endif %}
{{- '<|START|><|SYSTEM|>' + system }}
{%- for tool in tools or [] %}{{ '\n\n```python\n' }}{{ signature(tool) }}{{ '\n```' }}{% endfor %}
{{- '<|END|>' }}
{%- set ns = namespace(calls=0) %}
{%- for message in loop_messages %}
    {%- set content = message['content'] %}
    {%- if message.role == 'user' %}{{ '<|START|><|USER|>' + content.strip() + '<|END|>' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|START|><|BOT|>' }}{% generation %}{{ content.strip() if content }}
        {%- if message.tool_calls is defined %}{{ 'Action: ```json\n[' }}
            {%- for call in message.tool_calls %}
                {%- set f = call.function | default(call) %}
                {{- {'tool_name': f.name, 'parameters': f.arguments} | tojson(indent=2) | indent(2, true) }}{% if not loop.last %},{% endif %}
                {%- set ns.calls = ns.calls + 1 %}
            {%- endfor %}{{ ']```' }}
        {%- endif %}{{ '<|END|>' }}{% endgeneration %}
    {%- elif message.role == 'tool' %}{{ '<|START|><|SYSTEM|><results>' ~ loop.index0 ~ '/' ~ ns.calls ~ ': ' ~ content ~ '</results><|END|>' }}
    {%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|START|><|BOT|>' }}{% endif %}"""

# TypeScript types by recursion, channels, one long preamble in a macro.
HARMONY = r"""
{%- macro type_of(spec, required, depth=0) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- if spec['items']['type'] in ("string", "number", "boolean") -%}
                {{- spec['items']['type'] + "[]" -}}
            {%- else -%}
                {%- set inner -%}{{ type_of(spec['items'], required, depth + 1) }}{%- endset -%}
                {{- "any[]" if inner == "object | object" or inner|length > 50 else inner + "[]" }}
            {%- endif -%}
        {%- else -%}
            {{- "any[]" }}
        {%- endif -%}
        {%- if spec.nullable -%}{{- " | null" -}}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") if spec.type | length > 1 else spec.type[0] }}
    {%- elif spec.oneOf -%}
        {%- set has_object = false -%}
        {%- for variant in spec.oneOf %}{%- if variant.type == "object" %}{%- set has_object = true %}{%- endif %}{%- endfor %}
        {%- for variant in spec.oneOf %}
            {{- type_of(variant, required, depth + 1) -}}
            {%- if variant.description %}{{- "// " + variant.description }}{%- endif -%}
            {%- if variant.default is defined %}{{ " // default: " + variant.default|tojson }}{%- endif -%}
            {%- if not loop.last %}{{- " | " }}{% endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum %}{{- '"' + spec.enum|join('" | "') + '"' -}}{%- else %}string{%- endif %}
    {%- elif spec.type in ("number", "integer") -%}number
    {%- elif spec.type == "object" and spec.properties -%}
        {{- "{\n" }}
        {%- for name, prop in spec.properties.items() -%}
            {{- name ~ ("" if name in (spec.required or []) else "?") ~ ": " ~ type_of(prop, spec.required or [], depth + 1) -}}
            {%- if not loop.last %}{{-", " }}{% endif %}
        {%- endfor -%}
        {{- "}" }}
    {%- else -%}any
    {%- endif -%}
{%- endmacro -%}
{%- macro preamble() %}
{{- "Knowledge cutoff: 2024-06\nCurrent date: " + strftime_now("%Y-%m-%d") + "\n\n" }}
{%- if reasoning_effort is not defined %}{%- set reasoning_effort = "medium" %}{%- endif %}
{{- "Reasoning: " + reasoning_effort + "\n\n# Valid channels: analysis, commentary, final." }}
{%- endmacro %}
<|start|>system<|message|>{{ preamble() }}<|end|>
{%- if tools %}<|start|>developer<|message|>namespace functions {
{% for tool in tools %}
{%- set f = tool.function or tool %}
{%- for line in (f.description or '').splitlines() %}
// {{ line }}
{% endfor %}
type {{ f.name }} = (_: {
{% for name, spec in f.parameters.properties.items() %}
{{ name }}{{ '' if name in (f.parameters.required or []) else '?' }}: {{ type_of(spec, f.parameters.required or []) }},
{% endfor %}
}) => any;
{% endfor %}}<|end|>{% endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "<|channel|>" in (message.content or '') %}{{ raise_exception("channel tags in content") }}{% endif %}
        {%- if message.tool_calls %}
            {%- set call = message.tool_calls[0] %}{% if call.function %}{% set call = call.function %}{% endif %}
            {{- "<|start|>assistant to=functions." ~ call.name ~ "<|channel|>commentary json<|message|>" }}
            {{- call.arguments|tojson if call.arguments is not string else call.arguments }}{{ "<|call|>" }}
            {%- set last_tool_call.name = call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + (message.content or '') + "<|end|>" }}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}{{- raise_exception("Message has tool role, but there was no previous call!") }}{% endif %}
        {{- "<|start|>functions." + last_tool_call.name }}{{- " to=assistant<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" }}
        {%- if message.content is string %}{{ message.content }}{% else %}
            {%- for part in message.content if part.type == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}{{- "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""

# Flags in a namespace, break and continue, a list grown in a namespace.
DEEPSEEK = r"""
{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- if not thinking is defined %}{% set thinking = false %}{% endif %}
{%- set ns = namespace(is_first=true, is_tool=false, system='', seen=[], stop=false) -%}
{%- for message in messages %}{%- if message['role'] != 'system' %}{% continue %}{% endif %}
    {%- if ns.is_first %}{%- set ns.system = ns.system + message['content'] %}{%- set ns.is_first = false %}
    {%- else %}{%- set ns.system = ns.system + '\n\n' + message['content'] %}{%- endif %}
{%- endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set ns.is_tool = false -%}{{ '<｜User｜>' + message['content'] }}
    {%- elif message.role == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}
        {{- '<｜Assistant｜>' ~ ('' if not thinking else '<think>') }}
        {%- for tool in message['tool_calls'] %}
            {%- if loop.first and message['content'] is none %}{{ '<｜calls｜>' }}{% elif loop.first %}{{ message['content'] + '<｜calls｜>' }}{% endif %}
            {%- set f = tool['function'] %}
            {{- f['name'] + '<｜sep｜>' + (f['arguments'] if f['arguments'] is string else f['arguments']|tojson) + '<｜call｜>' }}
            {%- set ns.seen = ns.seen + [f.name] %}
            {%- if loop.index >= 2 %}{% break %}{% endif %}
        {%- endfor %}{{ eos_token }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{%- set content = content.split('</think>', 1)[1] -%}{%- endif %}
        {{- '<｜Assistant｜></think>' + content + eos_token }}
    {%- elif message.role == 'tool' %}
        {%- set ns.is_tool = true -%}{{ '<｜output｜>' ~ message.content ~ ' of ' ~ (ns.seen | last | default('nobody')) ~ (ns.seen | unique | list) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜>' }}{{ '<think>' if thinking else '</think>' }}{% endif %}"""

# Documents, sorted keys, selections, white space of all kinds.
GRANITE = r"""
{%- set controls = controls | default({}) %}
{%- if messages and messages[0]['role'] == 'system' %}
  {%- set system_message, loop_messages = messages[0]['content'], messages[1:] %}
{%- else %}
  {%- set system_message = "Knowledge Cutoff Date: April 2024.\nToday's Date: " + strftime_now('%B %d, %Y') + "." %}
  {%- if tools and documents %}{%- set system_message = system_message + " Tools and documents." %}
  {%- elif tools %}{%- set system_message = system_message + " Tools." %}
  {%- elif documents %}{%- set system_message = system_message + " Documents." %}{%- endif %}
  {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}
{%- if tools %}
  {{- '<|start_of_role|>tools<|end_of_role|>' }}{{ tools | map('tojson', indent=4) | join(',\n') }}{{ '<|end_of_text|>\n' }}
  {{- tools | selectattr('function', 'defined') | map(attribute='function.name') | sort | join(' ') }}
{%- endif %}
{%- for document in documents or [] %}
{{- 'Document ' + loop.index | string + '\n' + document['text'] + ('\n\n' if not loop.last else '') }}
{%- endfor %}
{%- for message in loop_messages %}
  {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' }}
  {%- if message.role == 'assistant' and message.tool_calls %}
    {{- '<|tool_call|>' }}{% for key, value in (message.tool_calls | first) | dictsort %}{{ key ~ '=' ~ value }};{% endfor %}
  {%- else %}{{ message['content'] }}{%- endif %}
  {{- '<|end_of_text|>\n' }}
  {%- if loop.last and add_generation_prompt %}
    {{- '<|start_of_role|>assistant' }}{{ ' ' + controls | tojson if controls }}{{ '<|end_of_role|>' }}
  {%- endif %}
{%- endfor %}"""

# Macros that look into contents, filters as blocks, joins and slices.
GLM = r"""[gMASK]<sop>
{%- if tools -%}
<|system|>
# Tools
{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
{%- endif -%}
{%- macro visible(content) -%}
    {%- if content is string -%}{{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}
            {%- if item is mapping and item.type == 'text' -%}{{- item.text }}
            {%- elif item is string -%}{{- item }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{- content }}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last_user_index=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last_user_index = loop.index0 -%}{%- endif %}{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible(m.content).endswith("/nothink")) else '' -}}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- set content = visible(m.content) %}
{%- if loop.index0 > ns.last_user_index and '</think>' in content -%}
{{ '\n<think>' + content.split('</think>')[0].split('<think>')[-1].strip() + '</think>' }}
{%- else -%}{{ '\n<think></think>' }}{%- endif -%}
{%- if content.strip() -%}{{ '\n' + content.split('</think>')[-1].strip() }}{%- endif -%}
{% for tc in m.tool_calls or [] %}
{%- if tc.function %}{%- set tc = tc.function %}{%- endif %}
{{ '\n<tool_call>' + tc.name }}
{% set args = tc.arguments %}
{% for k, v in (args.items() if args is mapping else []) %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}
</tool_call>{% endfor %}
{%- elif m.role == 'tool' -%}
{%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|observation|>' }}{%- endif %}
{% filter trim %} {{ m.content }} {% endfilter %}
{%- elif m.role == 'system' -%}
<|system|>
{{ visible(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}
{%- endif -%}"""

TEMPLATES = {"tulu": TULU, "olmo2": OLMO2, "chatml": CHATML, "qwen3": QWEN3, "mixtral": MIXTRAL, "llama2": LLAMA2,
             "llama3": LLAMA3, "zephyr": ZEPHYR, "command-r": COMMAND_R, "harmony": HARMONY, "deepseek": DEEPSEEK,
             "granite": GRANITE, "glm": GLM}
