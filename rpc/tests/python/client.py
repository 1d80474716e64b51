"""A client of the RPC protocol that knows what docs/rpc.md says, and the protobuf package.

Usage: client.py DOCUMENT HOST PORT. Prints a line for each thing that it has seen work; ends with 1 at the first that does not.
"""

import re
import socket
import struct
import sys

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DOCUMENT = open(sys.argv[1], encoding="utf-8").read()


def block(kind, name=""):
    """The text of a block of the page."""
    start = "\n```" + kind + (" " + name if name else "") + "\n"
    return DOCUMENT.split(start)[1].split("\n```")[0]


def messages(text, file_name):
    """The message classes of a .proto text, as far as the page's needs go."""
    proto = descriptor_pb2.FileDescriptorProto(name=file_name, syntax="proto3")
    proto.package = re.search(r"package ([\w.]+);", text).group(1)
    kinds = {"uint64": 4, "fixed32": 7, "bool": 8, "string": 9, "bytes": 12, "uint32": 13}
    enums = re.findall(r"enum (\w+) \{(.*?)\n\}", text, re.S)
    for name, inside in enums:
        enum = proto.enum_type.add(name=name)
        for value, number in re.findall(r"(\w+) = (\d+);", inside):
            enum.value.add(name=value, number=int(number))
    enum_names = [name for name, _ in enums]
    for name, inside in re.findall(r"message (\w+) \{(.*?)\n\}", text, re.S):
        message = proto.message_type.add(name=name)
        for label, kind, field_name, number in re.findall(
            r"(optional |repeated |)(\w+) (\w+) = (\d+);", inside
        ):
            field = message.field.add(name=field_name, number=int(number))
            field.label = 3 if label == "repeated " else 1
            if kind in kinds:
                field.type = kinds[kind]
            else:
                field.type = 14 if kind in enum_names else 11
                field.type_name = "." + proto.package + "." + kind
            if label == "optional ":
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name="_" + field_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(proto.SerializeToString())

    def get(name):
        descriptor = pool.FindMessageTypeByName(proto.package + "." + name)
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)

    return get, pool.FindEnumTypeByName(proto.package + ".Kind").values_by_name


get, KIND = messages(block("proto"), "wire.proto")
Header = get("Header")


def kind(name):
    return KIND[name].number


def method_id(name):
    hash_ = 0x811C9DC5
    for byte in name.encode("ascii"):
        hash_ = ((hash_ ^ byte) * 0x01000193) % 2**32
    return hash_


def frame(header, body=b""):
    head = header.SerializeToString()
    return struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body


def payload(data):
    """The test's message: bytes as field 1."""
    length, out = len(data), b""
    while length > 0x7F:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return b"\x0a" + out + bytes([length]) + data


class Connection:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        hello = Header(kind=kind("HELLO"))
        hello.hello.version = hello.hello.version_min = 1
        hello.hello.frame_bytes_max = 262144
        hello.hello.body_bytes_max = 4194304
        hello.hello.name = "py"
        assert frame(hello) == bytes.fromhex(block("hex", "hello")), "not the hello of the page"
        self.socket.sendall(frame(hello))
        answer, _ = self.receive()
        assert answer.kind == kind("HELLO") and answer.hello.version_min <= 1 <= answer.hello.version
        self.limits = answer.hello

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            assert piece, "closed"
            data += piece
        return data

    def receive(self):
        (length,) = struct.unpack(">I", self.exactly(4))
        assert length <= 262144
        data = self.exactly(length)
        (head,) = struct.unpack(">I", data[:4])
        return Header.FromString(data[4 : 4 + head]), data[4 + head :]

    def send(self, header, body=b""):
        limit = min(65536, self.limits.frame_bytes_max - 16384 - 4)
        piece, rest = (body, b"") if len(body) <= 16380 else (body[:limit], body[limit:])
        header.more = bool(rest)
        self.socket.sendall(frame(header, piece))
        while rest:
            piece, rest = rest[:limit], rest[limit:]
            chunk = Header(kind=kind("CHUNK"), call_id=header.call_id, more=bool(rest))
            self.socket.sendall(frame(chunk, piece))

    def answer(self):
        """The next answer with its whole body."""
        header, body = self.receive()
        more = header.more
        while more:
            chunk, piece = self.receive()
            assert chunk.kind == kind("CHUNK") and chunk.call_id == header.call_id
            body, more = body + piece, chunk.more
        return header, body


def request(call, method, **fields):
    return Header(kind=kind("REQUEST"), call_id=call, method_id=method_id(method), **fields)


def main():
    for name in re.findall(r"\n```hex (\w+)\n", DOCUMENT):
        data = bytes.fromhex(block("hex", name))
        while data:
            length, head = struct.unpack(">II", data[:8])
            header = Header.FromString(data[8 : 8 + head])
            body = data[8 + head : 4 + length]
            assert frame(header, body) == data[: 4 + length], name
            data = data[4 + length :]
    print("examples")

    connection = Connection(*sys.argv[2:4])
    print("hello")

    say = request(7, "rpc.test.Echo/Say", timeout_us=1000000)
    say.metadata.add(key="a", value=b"b")
    assert frame(say, payload(b"hi")) == bytes.fromhex(block("hex", "request")), "not the request of the page"
    connection.send(say, payload(b"hi"))
    header, body = connection.answer()
    assert (header.kind, header.call_id, body) == (kind("RESPONSE"), 7, payload(b"hi"))
    print("call")

    by_name = Header(kind=kind("REQUEST"), call_id=8, method="rpc.test.Echo/Say")
    connection.send(by_name, payload(b"by name"))
    assert connection.answer()[1] == payload(b"by name")
    print("by name")

    connection.send(request(9, "rpc.test.Echo/Nothing"))
    header, _ = connection.answer()
    assert (header.kind, header.call_id, header.status, header.executed) == (kind("ERROR"), 9, 12, 2)
    connection.send(request(10, "rpc.test.Echo/Say", timeout_us=0))
    header, _ = connection.answer()
    assert (header.status, header.executed) == (4, 2)
    print("errors")

    large = payload(b"x" * 1000000)
    connection.send(request(11, "rpc.test.Echo/Say"), large)
    header, body = connection.answer()
    assert header.kind == kind("RESPONSE") and body == large
    connection.send(request(12, "rpc.test.Echo/Say"), payload(b"x" * 5000000))
    header, _ = connection.answer()
    assert (header.call_id, header.status, header.executed) == (12, 8, 2)
    print("long bodies")

    # One that nobody answers, given up; then one that is.
    connection.send(request(13, "rpc.test.Echo/Wait"))
    connection.socket.sendall(frame(Header(kind=kind("CANCEL"), call_id=13)))
    connection.socket.sendall(frame(Header(kind=kind("PING"), call_id=42)))
    header, _ = connection.receive()
    assert frame(header) == bytes.fromhex(block("hex", "pong"))
    print("cancel and ping")

    print("ready to drain", flush=True)
    header, _ = connection.receive()
    assert frame(header) == bytes.fromhex(block("hex", "drain"))
    connection.socket.close()
    print("drained")


main()
