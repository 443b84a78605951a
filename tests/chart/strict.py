"""Objects against the types of Kubernetes, as strictly as a server decodes them: a field that is not there, a wrong type and a
missing one are refused. The types are those of the package that tools/get_helm.py fetches."""
import json
import zipfile

FOLDER = "kubernetes_validate/kubernetes-json-schema/v{}.0-local-strict/_definitions.json"
OURS = ("monitoring.coreos.com/", "cert-manager.io/", "keda.sh/")  # of others' extensions, without types here
TYPES = {"string": str, "boolean": bool, "object": dict, "array": list}


def is_of(value, name):
    if name == "null":
        return value is None
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


class Types:
    def __init__(self, wheel, version):
        with zipfile.ZipFile(wheel) as z, z.open(FOLDER.format(version)) as f:
            self.defs = json.load(f)["$defs"]
        self.kinds = {}
        for d in self.defs.values():
            p = d.get("properties", {})
            for api in p.get("apiVersion", {}).get("enum", []):
                for kind in p.get("kind", {}).get("enum", []):
                    self.kinds[api, kind] = d

    def check(self, d):
        """The complaints about an object; None: of a kind that this version does not have."""
        schema = self.kinds.get((d["apiVersion"], d["kind"]))
        return None if schema is None else list(self.walk(schema, d, d["kind"]))

    def walk(self, schema, value, path):
        if "$ref" in schema:
            schema = self.defs[schema["$ref"].rsplit("/", 1)[1]]
        if "oneOf" in schema:
            if not any(not list(self.walk(s, value, path)) for s in schema["oneOf"]):
                yield f"{path}: {value!r} is of none of the types"
            return
        names = schema.get("type", [])
        names = [names] if isinstance(names, str) else names
        if names and not any(is_of(value, name) for name in names):
            yield f"{path}: {value!r} is no {names[0]}"
            return
        if "enum" in schema and value is not None and value not in schema["enum"]:
            yield f"{path}: {value!r} is none of {schema['enum']}"
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.walk(schema.get("items", {}), item, f"{path}[{i}]")
        elif isinstance(value, dict):
            yield from self.fields(schema, value, path)

    def fields(self, schema, value, path):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in schema.get("required", []):
            if name not in value:
                yield f"{path}: {name} is missing"
        for name, inner in value.items():
            if name in known:
                yield from self.walk(known[name], inner, f"{path}.{name}")
            elif isinstance(others, dict):
                yield from self.walk(others, inner, f"{path}.{name}")
            elif known or others is False:
                yield f"{path}: there is no field {name}"
