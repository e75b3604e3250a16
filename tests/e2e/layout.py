# SPDX-License-Identifier: MIT
"""
OCI image layouts, made by hand, checked and made bad.

layout.py make DIR CHECKPOINT.tar CRIU.tar [gzip|zstd]  with images as podman and containerd make them
layout.py image DIR ROOT.tar NAME  with an image that has this root directory
layout.py merge DIR OTHER       what the other has comes to it
layout.py check DIR             each descriptor is right, and each blob is named; prints checkpoints
layout.py bad NAME FROM TO      a copy that is bad in one way; without NAME: all names
"""
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CRIU = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
OPTIONS = "application/vnd.containerd.container.checkpoint.options.v1+proto"


def sha(data):
    return hashlib.sha256(data).hexdigest()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def blob_path(top, digest):
    return os.path.join(top, "blobs", "sha256", digest.split(":")[1])


def put(top, data, media, **more):
    digest = "sha256:" + sha(data)
    write(blob_path(top, digest), data)
    return {"mediaType": media, "digest": digest, "size": len(data), **more}


def text(document, indent=None):
    return json.dumps(document, indent=indent, separators=None if indent else (",", ":")).encode()


def image(top, layer, compression="", annotations=None, indent=None):
    """A manifest with one layer, which Go's programs would escape as this text does."""
    packed = layer
    if compression == "gzip":
        packed = gzip.compress(layer, 1, mtime=0)
    elif compression == "zstd":
        packed = subprocess.run(["zstd", "-q", "-c"], input=layer, stdout=subprocess.PIPE, check=True).stdout
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh", "-c", "a && b"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha(layer)]},
    }
    config_text = text(config, indent).replace(b"&", b"\\u0026")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(top, config_text, CONFIG),
        "layers": [put(top, packed, LAYER + ("+" + compression if compression else ""))],
    }
    if annotations:
        manifest["annotations"] = annotations
    return put(top, text(manifest, indent), MANIFEST)


def make(top, checkpoint, criu, compression=""):
    os.makedirs(os.path.join(top, "blobs", "sha256"))
    write(os.path.join(top, "oci-layout"), b'{"imageLayoutVersion": "1.0.0"}')
    plain = image(top, b"no checkpoint, and no archive")
    container = {
        "schemaVersion": 2,
        "manifests": [
            plain,
            put(top, b"a diff", LAYER + "+gzip"),
            put(top, read(criu), CRIU, platform={"architecture": "amd64", "os": "linux"}),
            put(top, b"\x0a\x04what", OPTIONS),
        ],
        "annotations": {"io.containerd.checkpoint.runtime": "io.containerd.runc.v2"},
    }
    marks = {"io.podman.annotations.checkpoint.name": "first", "org.opencontainers.image.base.name": ""}
    podman = image(top, read(checkpoint), compression, marks, indent="\t")
    manifests = [
        plain,
        put(top, text(container), INDEX),
        podman,
        # Of another platform, and not there.
        {"mediaType": MANIFEST, "digest": "sha256:" + 64 * "0", "size": 7},
        {"mediaType": MANIFEST, "digest": "sha512:" + 128 * "0", "size": 7},
    ]
    write(os.path.join(top, "index.json"), text({"schemaVersion": 2, "manifests": manifests}, 1))
    # As docker save writes it, for docker load.
    manifest = json.loads(read(blob_path(top, podman["digest"])))
    docker = {
        "Config": "blobs/sha256/" + manifest["config"]["digest"].split(":")[1],
        "RepoTags": ["first:1"],
        "Layers": ["blobs/sha256/" + manifest["layers"][0]["digest"].split(":")[1]],
    }
    write(os.path.join(top, "manifest.json"), text([docker]))


def make_image(top, root, name):
    os.makedirs(os.path.join(top, "blobs", "sha256"))
    write(os.path.join(top, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
    d = image(top, read(root))
    d["annotations"] = {"io.containerd.image.name": name}
    write(os.path.join(top, "index.json"), text({"schemaVersion": 2, "manifests": [d]}))


def merge(top, other):
    for name in os.listdir(os.path.join(other, "blobs", "sha256")):
        shutil.copy(os.path.join(other, "blobs", "sha256", name), os.path.join(top, "blobs", "sha256", name))
    index, more = (json.loads(read(os.path.join(x, "index.json"))) for x in (top, other))
    index["manifests"] += more["manifests"]
    write(os.path.join(top, "index.json"), text(index))


def decompress(data):
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-q", "-d", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


class Check:
    def __init__(self, top):
        self.top = top
        self.named = set()
        self.checkpoints = []

    def descriptor(self, d):
        path = blob_path(self.top, d["digest"])
        if d["digest"].startswith("sha512:") or not os.path.exists(path):
            assert set(d["digest"].split(":")[1]) == {"0"}, d
            return None
        data = read(path)
        assert len(data) == d["size"], d
        assert "sha256:" + sha(data) == d["digest"], d
        self.named.add(os.path.basename(path))
        return data

    def index(self, data):
        for d in json.loads(data)["manifests"]:
            blob = self.descriptor(d)
            if blob is not None and d["mediaType"] == INDEX:
                self.index(blob)
            elif blob is not None and d["mediaType"] == MANIFEST:
                self.manifest(json.loads(blob))
            elif d["mediaType"] == CRIU:
                self.checkpoints.append(d["digest"].split(":")[1])

    def manifest(self, m):
        config = json.loads(self.descriptor(m["config"]))
        layers = [self.descriptor(d) for d in m["layers"]]
        assert config["rootfs"]["diff_ids"] == ["sha256:" + sha(decompress(x)) for x in layers]
        for d, data in zip(m["layers"], layers):
            assert ("+" in d["mediaType"]) == (data != decompress(data)), d
        if any("checkpoint" in key for key in m.get("annotations", {})):
            self.checkpoints.append(m["layers"][0]["digest"].split(":")[1])

    def all(self):
        self.index(read(os.path.join(self.top, "index.json")))
        there = set(os.listdir(os.path.join(self.top, "blobs", "sha256")))
        assert there == self.named, there ^ self.named
        path = os.path.join(self.top, "manifest.json")
        for docker in json.loads(read(path)) if os.path.exists(path) else []:
            for name in [docker["Config"]] + docker["Layers"]:
                assert os.path.exists(os.path.join(self.top, name)), name
        return sorted(set(self.checkpoints))


class Bad:
    """Each method makes the copy bad; its text begins with what ckfast has to say of it."""

    def __init__(self, top):
        self.top = top

    def index(self, change):
        path = os.path.join(self.top, "index.json")
        index = json.loads(read(path))
        change(index)
        write(path, text(index))

    def blob(self, media, change):
        # The first document of that type with a checkpoint, and the digests that lead to it.
        def in_index(index):
            for d in index["manifests"]:
                path = blob_path(self.top, d["digest"])
                if d["mediaType"] == media and os.path.exists(path) and b"heckpoint" in read(path):
                    document = json.loads(read(path))
                    data = change(document) or text(document)
                    d.update(put(self.top, data, media))
        self.index(in_index)

    def raw(self, data):
        write(os.path.join(self.top, "index.json"), data)

    def not_json(self):
        """corrupt layout: index.json, line 1"""
        self.raw(b'{"manifests": [')

    def deep(self):
        """corrupt layout: index.json, line 1: maximum parsing depth"""
        self.raw(b'{"manifests":' + 100000 * b"[" + 100000 * b"]" + b"}")

    def key_twice(self):
        """corrupt layout: index.json, line 1: duplicate object key"""
        self.raw(b'{"manifests":[],"manifests":[]}')

    def large(self):
        """index.json: more than 4 MiB of JSON"""
        self.raw(b'{"manifests":[]' + 5000000 * b" " + b"}")

    def no_list(self):
        """corrupt layout: no manifests in index.json"""
        self.raw(b'{"manifests":{}}')

    def no_checkpoint(self):
        """no checkpoint in the layout"""
        self.raw(b'{"manifests":[]}')

    def dots(self):
        """corrupt layout: a descriptor with a digest that is none"""
        self.index(lambda index: index["manifests"][1].update(digest="sha256:../../../../etc/passwd"))

    def dots_of_another(self):
        """corrupt layout: a descriptor with a digest that is none"""
        self.index(lambda index: index["manifests"][1].update(digest="a:../../index.json"))

    def upper_case(self):
        """corrupt layout: a descriptor with a digest that is none"""
        self.index(lambda index: index["manifests"][1].update(digest="sha256:" + 64 * "A"))

    def negative(self):
        """corrupt layout: a descriptor with a size that is none"""
        self.index(lambda index: index["manifests"][1].update(size=-1))

    def almost(self):
        """corrupt layout: a descriptor with a key that is almost digest"""
        self.index(lambda index: index["manifests"][1].update(Digest="sha256:" + 64 * "1"))

    def wrong_size(self):
        """corrupt layout: a size that is not the one by which it is named"""
        self.index(lambda index: index["manifests"][1].update(size=1))

    def damaged_document(self):
        """corrupt layout: a digest that is not the one by which it is named"""
        path = blob_path(self.top, json.loads(read(os.path.join(self.top, "index.json")))["manifests"][1]["digest"])
        write(path, read(path).replace(b"runc", b"RUNC"))

    def layer_size(self):
        """corrupt layout: blob"""
        self.blob(MANIFEST, lambda m: m["layers"][0].update(size=512))

    def damaged_layer(self):
        """corrupt layout: blob"""
        def change(manifest):
            path = blob_path(self.top, manifest["layers"][0]["digest"])
            data = bytearray(read(path))
            data[len(data) // 2] ^= 1
            write(path, data)
        self.blob(MANIFEST, change)

    def layer_is_gone(self):
        """cannot open blobs/sha256/"""
        self.blob(MANIFEST, lambda m: os.unlink(blob_path(self.top, m["layers"][0]["digest"])))

    def layer_is_a_link(self):
        """cannot open blobs/sha256/"""
        def change(manifest):
            path = blob_path(self.top, manifest["layers"][0]["digest"])
            os.rename(path, self.top + "/elsewhere")
            os.symlink("../../elsewhere", path)
        self.blob(MANIFEST, change)

    def no_archive(self):
        """neither a directory nor a tar archive"""
        self.blob(MANIFEST, lambda m: m["layers"][0].update(put(self.top, 2000 * b"x", LAYER)))

    def two_layers(self):
        """the checkpoint image"""
        self.blob(MANIFEST, lambda m: m["layers"].append(m["layers"][0]))

    def diff_ids(self):
        """corrupt layout: the diff_ids of configuration"""
        def change(manifest):
            config = json.loads(read(blob_path(self.top, manifest["config"]["digest"])))
            config["rootfs"]["diff_ids"] = ["sha256:" + 64 * "2"]
            manifest["config"].update(put(self.top, text(config), CONFIG))
        self.blob(MANIFEST, change)

    def escaped_key(self):
        """a document of the layout spells digest with escapes"""
        self.blob(MANIFEST, lambda m: text(m).replace(b'"digest"', b'"di\\u0067est"'))

    def blob_in_descriptor(self):
        """a descriptor of the layout that holds the blob itself"""
        self.blob(MANIFEST, lambda m: m["layers"][0].update(data="aGVsbG8="))

    def blob_in_escaped_key(self):
        """a descriptor of the layout that holds the blob itself"""
        def change(manifest):
            manifest["layers"][0].update(data="aGVsbG8=")
            return text(manifest).replace(b'"data"', b'"d\\u0061ta"')
        self.blob(MANIFEST, change)

    def almost_data(self):
        """corrupt layout: a descriptor with a key that is almost data"""
        self.blob(MANIFEST, lambda m: m["layers"][0].update(Data="aGVsbG8="))

    def grows(self):
        """the new layout cannot be read: blobs/sha256/"""
        def change(index):
            # Not compressed, its size has a digit more, for which the document has no room.
            d = next(d for d in index["manifests"] if d["mediaType"] == CRIU)
            d.update(put(self.top, gzip.compress(read(blob_path(self.top, d["digest"]))), CRIU))
            assert d["size"] < 1000000, d
            return text(index).ljust(4 << 20)
        self.blob(INDEX, change)

    def almost_in_unicode(self):
        """corrupt layout: a descriptor with a key that is almost size"""
        self.blob(MANIFEST, lambda m: m["layers"][0].update({"\u017fize": 1}))

    def almost_layers(self):
        """corrupt layout: a manifest with a key that is almost layers"""
        self.blob(MANIFEST, lambda m: m.update(Layers=[]))

    def almost_config(self):
        """corrupt layout: a manifest with a key that is almost config"""
        self.blob(MANIFEST, lambda m: m.update(CONFIG=m["config"]))

    def almost_manifests(self):
        """corrupt layout: an index with a key that is almost manifests"""
        self.index(lambda index: index.update({"manifest\u017f": []}))

    def almost_diff_ids(self):
        """corrupt layout: a rootfs with a key that is almost diff_ids"""
        def change(manifest):
            config = json.loads(read(blob_path(self.top, manifest["config"]["digest"])))
            config["rootfs"]["Diff_IDs"] = []
            manifest["config"].update(put(self.top, text(config), CONFIG))
        self.blob(MANIFEST, change)

    def media(self, name):
        self.blob(MANIFEST, lambda m: m["layers"][0].update(mediaType=name))

    def media_with_quotes(self):
        """corrupt layout: a layer with a media type that is none"""
        self.media('a","digest":"sha256:' + 64 * "0" + '","x":"+gzip')

    def media_without_slash(self):
        """corrupt layout: a layer with a media type that is none"""
        self.media("layer+gzip")

    def long_media(self):
        """corrupt layout: a layer with a media type that is none"""
        self.media("a/" + 123 * "b" + "+gzip")

    def nested(self):
        """indexes are nested more than 8 deep"""
        def change(index):
            for _ in range(9):
                index["manifests"] = [put(self.top, text({"manifests": index["manifests"]}), INDEX)]
        self.index(change)

    def later_version(self):
        """an image layout of a version other than 1"""
        write(os.path.join(self.top, "oci-layout"), b'{"imageLayoutVersion":"2.0.0"}')


def make_bad(name, source, top):
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(source, top)
    getattr(Bad(top), name)()
    print(getattr(Bad, name).__doc__)


def main(verb, *args):
    if verb == "make":
        make(*args)
    elif verb == "image":
        make_image(*args)
    elif verb == "merge":
        merge(*args)
    elif verb == "check":
        print(*Check(*args).all())
    elif args:
        make_bad(*args)
    else:
        print(*(name for name, method in vars(Bad).items() if callable(method) and method.__doc__))


main(*sys.argv[1:])
