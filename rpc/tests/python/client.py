"""A client of the RPC protocol that knows what docs/rpc.md says, the .proto file of the service it calls, and the protobuf package.

Usage: client.py DOCUMENT SERVICE HOST PORT. Prints a line for each thing that it has seen work; ends with 1 at the first that does not.
"""

import re
import socket
import struct
import sys
import time

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DOCUMENT = open(sys.argv[1], encoding="utf-8").read()
SERVICE = open(sys.argv[2], encoding="utf-8").read()


def block(kind, name=""):
    """The text of a block of the page."""
    start = "\n```" + kind + (" " + name if name else "") + "\n"
    return DOCUMENT.split(start)[1].split("\n```")[0]


def messages(text, file_name):
    """The message classes of a .proto text, and its enums, as far as what is needed here goes."""
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
    # Older versions of the package know only the first of these, newer ones only the second.
    pool.Add(proto) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(proto.SerializeToString())

    def get(name):
        descriptor = pool.FindMessageTypeByName(proto.package + "." + name)
        if hasattr(message_factory, "GetMessageClass"):
            return message_factory.GetMessageClass(descriptor)
        return message_factory.MessageFactory(pool).GetPrototype(descriptor)

    def number(enum, name):
        return pool.FindEnumTypeByName(proto.package + "." + enum).values_by_name[name].number

    return get, number


get, number = messages(block("proto"), "wire.proto")
Header = get("Header")
of_service, _ = messages(SERVICE, "echo.proto")
Payload, Delay, Counted, Failure = map(of_service, ["Payload", "Delay", "Counted", "Failure"])


def kind(name):
    return number("Kind", name)


def executed(name):
    return number("Executed", name)


def method_id(name):
    hash_ = 0x811C9DC5
    for byte in name.encode("ascii"):
        hash_ = ((hash_ ^ byte) * 0x01000193) % 2**32
    return hash_


def frame(header, body=b""):
    head = header.SerializeToString()
    return struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body


def payload(data):
    return Payload(data=data).SerializeToString()


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

    def ping(self, number):
        self.socket.sendall(frame(Header(kind=kind("PING"), call_id=number)))
        header, body = self.receive()
        assert (header.kind, header.call_id, body) == (kind("PONG"), number, b"")
        return header

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


def examples():
    for name in re.findall(r"\n```hex (\w+)\n", DOCUMENT):
        data = bytes.fromhex(block("hex", name))
        while data:
            length, head = struct.unpack(">II", data[:8])
            header = Header.FromString(data[8 : 8 + head])
            body = data[8 + head : 4 + length]
            assert frame(header, body) == data[: 4 + length], name
            data = data[4 + length :]
    print("examples")


def calls(connection):
    say = request(7, "rpc.test.Echo/Say", timeout_us=1000000)
    say.metadata.add(key="a", value=b"b")
    assert frame(say, payload(b"hi")) == bytes.fromhex(block("hex", "request")), "not the request of the page"
    connection.send(say, payload(b"hi"))
    header, body = connection.answer()
    assert (header.kind, header.call_id, body) == (kind("RESPONSE"), 7, payload(b"hi"))
    # The service puts this behind what it gives back.
    with_suffix = request(1, "rpc.test.Echo/Say")
    with_suffix.metadata.add(key="suffix", value=b"!")
    connection.send(with_suffix, payload(b"hi"))
    assert Payload.FromString(connection.answer()[1]).data == b"hi!"
    print("call")

    by_name = Header(kind=kind("REQUEST"), call_id=8, method="rpc.test.Echo/Say")
    connection.send(by_name, payload(b"by name"))
    assert connection.answer()[1] == payload(b"by name")
    print("by name")

    # The second overtakes the first, which is answered when this line was seen.
    connection.send(request(20, "rpc.test.Echo/Wait", timeout_us=30000000), Delay(data=b"x").SerializeToString())
    connection.send(request(21, "rpc.test.Echo/Count"))
    header, body = connection.answer()
    assert (header.call_id, Counted.FromString(body).calls) == (21, 1)
    print("answer the one that waits", flush=True)
    header, body = connection.answer()
    assert (header.call_id, Payload.FromString(body).data) == (20, b"late")
    print("in any order")


def errors(connection):
    def refused(call, **expected):
        header, body = connection.answer()
        assert (header.kind, header.call_id, body) == (kind("ERROR"), call, b"")
        for field, value in expected.items():
            assert getattr(header, field) == value, (field, getattr(header, field), value)

    connection.send(request(9, "rpc.test.Echo/Nothing"))
    refused(9, status=12, executed=executed("REJECTED"))
    gone = Failure(code=5, message="gone", details=b"\x00\xff")
    connection.send(request(30, "rpc.test.Echo/Fail"), gone.SerializeToString())
    refused(30, status=5, message="gone", details=b"\x00\xff", executed=executed("EXECUTED"))
    connection.send(request(31, "rpc.test.Echo/Forget"))
    refused(31, status=13, executed=executed("UNKNOWN"))
    connection.send(request(32, "rpc.test.Echo/Say"), b"\xff")
    refused(32, status=3, executed=executed("REJECTED"))
    print("errors")

    connection.send(request(10, "rpc.test.Echo/Say", timeout_us=0))
    refused(10, status=4, executed=executed("REJECTED"))
    # The server has read the first piece when it answers the ping; its second comes too late.
    late = payload(b"late")
    first = request(33, "rpc.test.Echo/Say", timeout_us=1000, more=True)
    connection.socket.sendall(frame(first, late[:3]))
    connection.ping(33)
    time.sleep(0.01)
    connection.socket.sendall(frame(Header(kind=kind("CHUNK"), call_id=33), late[3:]))
    refused(33, status=4, executed=executed("REJECTED"))
    print("deadline")


def long_bodies(connection):
    large = payload(b"x" * 1000000)
    connection.send(request(11, "rpc.test.Echo/Say"), large)
    header, body = connection.answer()
    assert header.kind == kind("RESPONSE") and body == large
    connection.send(request(12, "rpc.test.Echo/Say"), payload(b"x" * 5000000))
    header, _ = connection.answer()
    assert (header.call_id, header.status, header.executed) == (12, 8, executed("REJECTED"))
    print("long bodies")


def cancel(connection):
    # Nobody answers it; it is given up, and there is no answer to that either: the next frame is the pong.
    connection.send(request(7, "rpc.test.Echo/Wait"))
    cancel = frame(Header(kind=kind("CANCEL"), call_id=7))
    assert cancel == bytes.fromhex(block("hex", "cancel")), "not the cancel of the page"
    connection.socket.sendall(cancel)
    header = connection.ping(42)
    assert frame(header) == bytes.fromhex(block("hex", "pong"))
    print("cancel and ping")


def stranger(host, port):
    # A frame that is longer than the server takes ends the connection.
    other = Connection(host, port)
    other.socket.sendall(struct.pack(">II", other.limits.frame_bytes_max + 1, 2))
    assert other.socket.recv(1) == b"", "not closed"
    other.socket.close()
    print("closed on garbage")


def main():
    examples()
    host, port = sys.argv[3:5]
    connection = Connection(host, port)
    print("hello")
    calls(connection)
    errors(connection)
    long_bodies(connection)
    cancel(connection)
    stranger(host, port)

    print("ready to drain", flush=True)
    header, _ = connection.receive()
    assert frame(header) == bytes.fromhex(block("hex", "drain"))
    connection.socket.close()
    print("drained")


main()
