#!/usr/bin/env python3
"""Prints the public API of a crate, an item per line, from rustdoc's JSON: rustdoc_json.py CRATE [DEPENDENCY...]

Each item is named by the shortest of its public paths; the others are listed as `use PATH as OTHER`. So are the items
of a DEPENDENCY. Those of the standard library are named as in `std`, without a path if they are in the prelude, and
those of other crates by crate and name. A local type that has no public path is `CRATE::(private)::NAME`.

The bounds of an impl stand in the where clauses of its methods. Not listed are implementations of auto traits that
nobody wrote, and what a blanket implementation gives to each type.

Exits with 77 if the format of the JSON is not known.
"""

import heapq
import json
import re
import sys

# rustdoc-types has a changelog of the format: https://docs.rs/rustdoc-types. From 57 to 60 it only gained fields.
FORMATS = range(57, 61)

STD = ("core", "alloc", "std")
STD_MODULES = ("os::unix::net", "os::fd", "sync::atomic")  # other items are named after the first module of theirs
PRELUDE = set(
    "borrow::ToOwned boxed::Box clone::Clone cmp::Eq cmp::Ord cmp::PartialEq cmp::PartialOrd convert::AsMut "
    "convert::AsRef convert::From convert::Into convert::TryFrom convert::TryInto default::Default future::Future "
    "future::IntoFuture iter::Extend iter::FromIterator iter::IntoIterator iter::Iterator marker::Copy marker::Send "
    "marker::Sized marker::Sync marker::Unpin ops::Drop ops::Fn ops::FnMut ops::FnOnce option::Option result::Result "
    "string::String string::ToString vec::Vec".split()
)
# The order of the lines of a path.
DEFINITION, MEMBER, FUNCTION, IMPLEMENTATION, ALIAS = range(5)
# What does not count for the order within that.
QUALIFIERS = re.compile(r"^(#\[[^]]*\] |const (?=fn )|async |unsafe )*")


def load(file):
    with open(file, encoding="utf-8") as source:
        document = json.load(source)
    if document["format_version"] not in FORMATS:
        known = f"{FORMATS[0]} to {FORMATS[-1]}"
        print(f"rustdoc wrote version {document['format_version']} of its JSON; known are {known}", file=sys.stderr)
        sys.exit(77)
    return document


def kind_of(node):
    """The name of a variant and what it holds. Serde writes a variant that holds nothing as a string."""
    return (node, None) if isinstance(node, str) else next(iter(node.items()))


class Api:
    def __init__(self, document, dependencies=()):
        self.index = {int(id_): item for id_, item in document["index"].items()}
        self.summaries = {int(id_): summary for id_, summary in document["paths"].items()}
        self.crate = self.index[document["root"]]["name"]
        self.foreign = {path: public for each in dependencies for path, public in each.exported().items()}
        self.public = {}  # the public path of each item that has one
        self.lines = []  # with what they are sorted by
        self.find_public_paths(document["root"])

    def exported(self):
        """The public path of each item, by the path where it is defined."""
        summaries = self.summaries
        return {tuple(summaries[id_]["path"]): path for id_, path in self.public.items() if id_ in summaries}

    def find_public_paths(self, root):
        waiting = [(1, False, (self.crate,), root)]
        while waiting:
            _, _, path, id_ = heapq.heappop(waiting)
            item = self.index.get(id_)
            kind, inner = kind_of(item["inner"]) if item else (None, None)
            if item is None or id_ in self.public:
                self.add(path, ALIAS, f"use {self.name(id_)} as {'::'.join(path)}")
                continue
            if kind == "use":
                if inner["is_glob"] and inner["id"] in self.index:
                    self.enqueue(waiting, path[:-1], self.children(inner["id"]))
                elif inner["is_glob"] or inner["id"] is None:
                    self.add(path, ALIAS, f"use {inner['source']} as {'::'.join(path)}")
                else:
                    self.enqueue(waiting, path[:-1], [(inner["name"], inner["id"])])
                continue
            self.public[id_] = path
            if kind == "module":
                self.enqueue(waiting, path, self.children(id_))

    def children(self, id_):
        """The items of a module or the variants of an enum, with their names."""
        _, inner = kind_of(self.index[id_]["inner"])
        children = [(child, self.index[child]) for child in inner.get("items") or inner.get("variants", ())]
        return [(item["name"] or "*", child) for child, item in children if "impl" not in item["inner"]]

    @staticmethod
    def enqueue(waiting, path, items):
        for name, id_ in items:
            heapq.heappush(waiting, (len(path), "prelude" in path, (*path, name), id_))

    def add(self, path, rank, line):
        self.lines.append((path, rank, QUALIFIERS.sub("", line), line))

    def listing(self):
        for id_, path in self.public.items():
            self.item(self.index[id_], path)
        for item in self.index.values():
            kind, inner = kind_of(item["inner"])
            if kind == "impl" and not inner["is_synthetic"] and inner["blanket_impl"] is None:
                self.impl(inner)
        return [line for *_, line in sorted(set(self.lines))]

    # Items

    def item(self, item, path):
        kind, inner = kind_of(item["inner"])
        attributes, name = self.attributes(item), "::".join(path)
        match kind:
            case "module":
                self.add(path, DEFINITION, f"{attributes}mod {name}")
            case "struct":
                self.struct(inner, path, f"{attributes}struct {name}")
            case "enum":
                rest = " { .. }" if inner["has_stripped_variants"] else ""
                self.add(path, DEFINITION, f"{attributes}enum {name}{self.declared(inner['generics'], rest)}")
                for variant in map(self.index.get, inner["variants"]):
                    self.item(variant, (*path, variant["name"]))
            case "variant":
                fields, rest = self.fields(inner["kind"])
                body = " { " + ", ".join(fields + rest) + " }" if fields + rest else ""
                if "tuple" in inner["kind"]:
                    body = f"({', '.join(fields)})"
                value = f" = {inner['discriminant']['expr']}" if inner["discriminant"] else ""
                self.add(path[:-1], MEMBER, f"{attributes}variant {name}{body}{value}")
            case "trait":
                unsafe = "unsafe " if inner["is_unsafe"] else ""
                bounds = f": {self.bounds(inner['bounds'])}" if inner["bounds"] else ""
                declared = self.declared(inner["generics"], bounds)
                self.add(path, DEFINITION, f"{attributes}{unsafe}trait {name}{declared}")
                for member in map(self.index.get, inner["items"]):
                    provided = " { .. }" if member["inner"].get("function", {}).get("has_body") else ""
                    self.add(path, MEMBER, self.member(member, name) + provided)
            case "function" | "constant" | "type_alias" | "static" | "macro":
                self.add(path, DEFINITION, self.member(item, "::".join(path[:-1])))
            case _:
                raise NotImplementedError(f"an item of the kind {kind}")

    def struct(self, inner, path, name):
        fields, rest = self.fields(inner["kind"])
        body = " { .. }" if rest else ""
        if "tuple" in inner["kind"]:
            body, fields = f"({', '.join(fields)})", []
        self.add(path, DEFINITION, name + self.declared(inner["generics"], body))
        for field in fields:
            self.add(path, MEMBER, f"field {'::'.join(path)}::{field}")

    def fields(self, shape):
        """The public fields of a struct or a variant, and `..` if there are others."""
        kind, inner = kind_of(shape)
        if kind == "tuple":
            types = (id_ if id_ is None else self.index[id_]["inner"]["struct_field"] for id_ in inner)
            return ["_" if type_ is None else self.type(type_) for type_ in types], []
        if inner is None:
            return [], []
        fields = map(self.index.get, inner["fields"])
        return (
            [f"{field['name']}: {self.type(field['inner']['struct_field'])}" for field in fields],
            [".."] if inner["has_stripped_fields"] else [],
        )

    def member(self, item, owner, impl=None):
        """A function, a constant or a type of the owner, which is a module, a type or a trait."""
        kind, inner = kind_of(item["inner"])
        attributes, name = self.attributes(item), f"{owner}::{item['name']}"
        where = self.where(impl) if impl else []
        match kind:
            case "function":
                return attributes + self.function(inner, name, where)
            case "constant":
                value = inner["const"]["value"] or inner["const"]["expr"]
                return f"{attributes}const {name}: {self.type(inner['type'])} = {value}"
            case "assoc_const":
                value = f" = {inner['value']}" if inner["value"] not in (None, "_") else ""
                return f"{attributes}const {name}: {self.type(inner['type'])}{value}{joined(where)}"
            case "assoc_type" | "type_alias":
                bounds = f": {self.bounds(inner['bounds'])}" if inner.get("bounds") else ""
                value = f" = {self.type(inner['type'])}" if inner["type"] else ""
                return f"{attributes}type {name}{self.declared(inner['generics'], bounds + value)}{joined(where)}"
            case "static":
                return f"{attributes}static {name}: {self.type(inner['type'])}"
            case "macro":
                return f"{attributes}macro {name}"
        raise NotImplementedError(f"a member of the kind {kind}")

    def impl(self, impl):
        type_, trait = impl["for"], impl["trait"]
        while "borrowed_ref" in type_:
            type_ = type_["borrowed_ref"]["type"]
        id_ = type_.get("resolved_path", {}).get("id")
        if self.is_private(id_):
            return
        path = self.public.get(id_)
        if path is None:  # of a foreign type, or of every type: it stands with the trait, or the trait's parameter
            if self.is_private(trait["id"]):
                return
            path = next((self.public[each] for each in ids(trait) if each in self.public), (self.crate,))
        items = [self.index[item] for item in impl["items"] if item in self.index]
        if trait is None:
            for item in items:
                self.add(path, FUNCTION, self.member(item, self.type(impl["for"]), impl["generics"]))
            return
        if self.summaries[trait["id"]]["path"][-1] == "StructuralPartialEq":
            return
        types = [
            f"type {item['name']} = {self.type(item['inner']['assoc_type']['type'])}"
            for item in items if "assoc_type" in item["inner"]
        ]
        body = f" {{ {'; '.join(sorted(types))} }}" if types else ""
        unsafe, negative = "unsafe " if impl["is_unsafe"] else "", "!" if impl["is_negative"] else ""
        self.add(path, IMPLEMENTATION, f"{unsafe}impl{self.parameters(impl['generics']['params'])} {negative}"
                 f"{self.path(trait)} for {self.type(impl['for'])}{joined(self.predicates(impl['generics']))}{body}")

    @staticmethod
    def attributes(item):
        listed = []
        for kind, inner in map(kind_of, item["attrs"]):
            if kind in ("non_exhaustive", "must_use"):
                listed.append(kind)
            elif kind == "repr":
                parts = [inner["kind"] if inner["kind"] != "rust" else None, inner["int"]]
                listed.append(f"repr({', '.join(filter(None, parts))})")
        if item["deprecation"]:
            listed.append("deprecated")
        return "".join(f"#[{each}] " for each in sorted(listed))

    def function(self, function, name="", where=()):
        """A function, or without a name the type of a pointer to one."""
        header, signature = function["header"], function["sig"]
        generics = function.get("generics") or {"params": function["generic_params"], "where_predicates": []}
        words = [word for word in ("const", "async", "unsafe") if header[f"is_{word}"]]
        if header["abi"] != "Rust":
            words.append(f'extern "{kind_of(header["abi"])[0]}"')
        parameters = [self.parameter(each, type_) for each, type_ in signature["inputs"]]
        declared = self.parameters(generics["params"])
        if not name and declared:
            words.insert(0, f"for{declared}")
        return (
            " ".join([*words, f"fn {name}{declared}" if name else "fn"])
            + f"({', '.join(parameters)}){self.output(signature['output'])}"
            + joined([*where, *self.predicates(generics)])
        )

    def parameter(self, name, type_):
        text = self.type(type_)
        if name == "self" and {"generic": "Self"} in (type_, type_.get("borrowed_ref", {}).get("type")):
            return text.removesuffix("Self") + "self"
        return f"{name}: {text}" if name else text

    def output(self, type_):
        return f" -> {self.type(type_)}" if type_ else ""

    # Generics

    def declared(self, generics, text):
        """What stands behind a name: parameters, the text, and the where clause."""
        return self.parameters(generics["params"]) + text + joined(self.predicates(generics))

    def parameters(self, parameters):
        return angles([text for text in map(self.generic, parameters) if text])

    def generic(self, parameter):
        """A declared parameter; nothing for what stands for an `impl` in a signature."""
        name, (kind, inner) = parameter["name"], kind_of(parameter["kind"])
        if kind == "lifetime":
            return f"{name}: {' + '.join(inner['outlives'])}" if inner["outlives"] else name
        default = inner["default"]
        if kind == "const":
            return f"const {name}: {self.type(inner['type'])}" + (f" = {default}" if default else "")
        if inner["is_synthetic"]:
            return ""
        bounds = f": {self.bounds(inner['bounds'])}" if inner["bounds"] else ""
        return name + bounds + (f" = {self.type(default)}" if default else "")

    def where(self, generics):
        """What an impl demands of its parameters."""
        declared = [self.generic(parameter) for parameter in generics["params"]]
        return [text for text in declared if ": " in text] + self.predicates(generics)

    def predicates(self, generics):
        return [self.predicate(*kind_of(predicate)) for predicate in generics["where_predicates"]]

    def predicate(self, kind, inner):
        match kind:
            case "bound_predicate":
                quantified = self.quantified(inner["generic_params"])
                return f"{quantified}{self.type(inner['type'])}: {self.bounds(inner['bounds'])}"
            case "lifetime_predicate":
                return f"{inner['lifetime']}: {' + '.join(inner['outlives'])}"
        raise NotImplementedError(f"a predicate of the kind {kind}")

    def quantified(self, parameters):
        return f"for{self.parameters(parameters)} " if parameters else ""

    def bounds(self, bounds):
        return " + ".join(self.bound(*kind_of(bound)) for bound in bounds)

    def bound(self, kind, inner):
        match kind:
            case "trait_bound":
                modifier = {"none": "", "maybe": "?", "maybe_const": "[const] "}[inner["modifier"]]
                return self.quantified(inner["generic_params"]) + modifier + self.path(inner["trait"])
            case "outlives":
                return inner
            case "use":
                return f"use<{', '.join(kind_of(each)[1] for each in inner)}>"
        raise NotImplementedError(f"a bound of the kind {kind}")

    # Types

    def type(self, type_):
        kind, inner = kind_of(type_)
        match kind:
            case "resolved_path":
                return self.path(inner)
            case "generic" | "primitive":
                return inner if inner != "never" else "!"
            case "tuple":
                return f"({', '.join(map(self.type, inner))}{',' if len(inner) == 1 else ''})"
            case "slice":
                return f"[{self.type(inner)}]"
            case "array":
                return f"[{self.type(inner['type'])}; {inner['len']}]"
            case "borrowed_ref":
                words = [inner["lifetime"], "mut" if inner["is_mutable"] else None, self.pointee(inner["type"])]
                return "&" + " ".join(filter(None, words))
            case "raw_pointer":
                return f"*{'mut' if inner['is_mutable'] else 'const'} {self.pointee(inner['type'])}"
            case "impl_trait":
                return f"impl {self.bounds(inner)}"
            case "dyn_trait":
                bounds = [self.bound("trait_bound", {**each, "modifier": "none"}) for each in inner["traits"]]
                lifetime = [inner["lifetime"]] if inner["lifetime"] else []
                return f"dyn {' + '.join(bounds + lifetime)}"
            case "function_pointer":
                return self.function(inner)
            case "qualified_path":
                self_type, trait = self.type(inner["self_type"]), inner["trait"]
                if trait and "generic" not in inner["self_type"]:
                    self_type = f"<{self_type} as {self.path(trait)}>"
                return f"{self_type}::{inner['name']}{self.arguments(inner['args'])}"
            case "infer":
                return "_"
        raise NotImplementedError(f"a type of the kind {kind}")

    def pointee(self, type_):
        text = self.type(type_)
        return f"({text})" if text.startswith(("dyn ", "impl ")) and " + " in text else text

    def path(self, path):
        return self.name(path["id"], path["path"]) + self.arguments(path["args"])

    def name(self, id_, written="?"):
        if id_ in self.public:
            return "::".join(self.public[id_])
        if id_ not in self.summaries:
            return written
        path = tuple(self.summaries[id_]["path"])
        if self.is_local(id_):
            return f"{self.crate}::(private)::{path[-1]}"
        if path in self.foreign:
            return "::".join(self.foreign[path])
        crate, *modules = path
        if crate not in STD or len(modules) < 2:
            return f"{crate}::{path[-1]}" if modules else crate
        module = next((each for each in STD_MODULES if "::".join(modules).startswith(f"{each}::")), modules[0])
        name = f"{module}::{path[-1]}"
        return path[-1] if name in PRELUDE else f"std::{name}"

    def is_local(self, id_):
        return id_ in self.summaries and self.summaries[id_]["crate_id"] == 0

    def is_private(self, id_):
        return self.is_local(id_) and id_ not in self.public

    def arguments(self, arguments):
        if not arguments:
            return ""
        kind, inner = kind_of(arguments)
        if kind == "parenthesized":
            return f"({', '.join(map(self.type, inner['inputs']))}){self.output(inner['output'])}"
        return angles([*map(self.term, inner["args"]), *map(self.constraint, inner["constraints"])])

    def term(self, term):
        """An argument, or what an associated type or constant is equal to."""
        kind, inner = kind_of(term)
        if kind == "type":
            return self.type(inner)
        return "_" if kind == "infer" else inner["expr"] if kind in ("const", "constant") else inner

    def constraint(self, constraint):
        name = constraint["name"] + self.arguments(constraint["args"])
        kind, inner = kind_of(constraint["binding"])
        return f"{name} = {self.term(inner)}" if kind == "equality" else f"{name}: {self.bounds(inner)}"


def ids(node):
    """The ids of the types and traits in a part of the JSON, from the outside in."""
    if isinstance(node, dict):
        if "id" in node:
            yield node["id"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from ids(child)


def angles(texts):
    return f"<{', '.join(texts)}>" if texts else ""


def joined(predicates):
    return f" where {', '.join(predicates)}" if predicates else ""


def main(crate, *dependencies):
    api = Api(load(crate), [Api(load(each)) for each in dependencies])
    print("\n".join(api.listing()))


if __name__ == "__main__":
    main(*sys.argv[1:])
