#!/usr/bin/python3
"""What a careless or hostile peer may send: draftd refuses it in words, stays alive, answers others meanwhile, and in
the end holds no more descriptors and hardly more memory than before.

    hostile_rpc_test.py --build BUILD [unittest arguments]
"""

import argparse
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import grpc
from google.protobuf.descriptor import FieldDescriptor

from draftd_api import ENDED, SECONDS, Daemon, Error, clean_up, eventually, pb, sanitizers, tiny_spec

BUILD = None
Code = grpc.StatusCode
MIB = 1024  # KiB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FILES = [pb.jobs, pb.metrics, pb.previews, pb.checkpoints, pb.system, pb.health, pb.reflection]
METHODS = [(f"/{service.full_name}/{method.name}", method) for file in FILES
           for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods]


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def string_fields(descriptor, path=""):
    """(path, function from bytes to a message that holds them there) of every string below a message."""
    for one in descriptor.fields:
        name = path + ("." if path else "") + one.name + ("[0]" if one.label == FieldDescriptor.LABEL_REPEATED else "")
        wrap = lambda data, number=one.number: field(number, data)
        if one.type == FieldDescriptor.TYPE_STRING:
            yield name, wrap
        elif one.type == FieldDescriptor.TYPE_MESSAGE:
            for below, inner in string_fields(one.message_type, name):
                yield below, lambda data, wrap=wrap, inner=inner: wrap(inner(data))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name, value):
    """HPACK: a literal without indexing, lengths below 127."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


REQUEST_HEADERS = (header(b":method", b"POST") + header(b":scheme", b"http") + header(b":authority", b"x") +
                   header(b":path", b"/draftd.v1.JobService/WatchJobs") + header(b"te", b"trailers") +
                   header(b"content-type", b"application/grpc"))


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(BUILD)
        cls.addClassCleanup(cls.daemon.remove)
        cls.info()  # whatever is made once is made now
        for path, method in METHODS[:3]:
            cls.send(path, b"\xff")
        cls.quiet()
        cls.first_descriptors = cls.daemon.descriptors()
        cls.first_memory = cls.daemon.memory_kib()

    @classmethod
    def tearDownClass(cls):
        cls.quiet()
        eventually(lambda: cls.daemon.descriptors() <= cls.first_descriptors + 2)
        cls.grew_at_most(cls.first_memory, 96 * MIB)  # malloc does not give back at once
        log = cls.daemon.log()
        assert "Sanitizer" not in log and "Assertion" not in log, log[-4000:]
        status = cls.daemon.stop()
        assert status == 0, f"draftd left with {status}:\n" + cls.daemon.log()[-4000:]

    def tearDown(self):
        if self.daemon.process.poll() is not None:
            print(f"{self.id()}: draftd is gone: {self.daemon.process.poll()}\n" + self.daemon.log()[-8000:], flush=True)
            clean_up()
            os._exit(1)
        self.info()

    @classmethod
    def info(cls, timeout=SECONDS):
        return cls.daemon.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=timeout)

    @classmethod
    def grew_at_most(cls, before, limit):
        """Sanitizers keep freed memory and shadows of it: no measure of ours."""
        grown = cls.daemon.memory_kib() - before
        assert grown < limit or sanitizers(BUILD), f"draftd's memory grew by {grown} KiB"

    @classmethod
    def quiet(cls):
        """Connections that are gone are closed by draftd a moment later."""
        time.sleep(0.3)

    @classmethod
    def send(cls, path, data, timeout=SECONDS, **more):
        """Raw bytes to any method; the error, or None when it was answered."""
        call = cls.daemon.channel.unary_stream(path)
        try:
            for _ in call(data, timeout=timeout, **more):
                pass
        except grpc.RpcError as error:
            return Error(error)
        return None

    def raw(self):
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(SECONDS)
        s.connect(self.daemon.socket)
        return s

    def throw(self, s, data):
        """Sends as much as the other side takes."""
        try:
            s.sendall(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass

    def closes(self, s):
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def test_malformed_messages_on_every_method(self):
        source = random.Random(1)
        nested = b""
        for _ in range(3000):
            nested = field(1, nested)
        for path, method in METHODS:
            for data in [b"\xff", b"\x0a\x05abc", b"\x0b", b"\x0a" + b"\xff" * 9 + b"\x01", b"\x80" * 20, nested,
                         b"\x0e\x0f", source.randbytes(100), source.randbytes(5000)]:
                with self.subTest(path=path, data=data[:20]):
                    found = self.send(path, data, timeout=5)
                    if found is None:  # bytes that happen to be unknown fields
                        continue
                    self.assertNotIn(found.code, (Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE), found)
                    if found.code == Code.DEADLINE_EXCEEDED:
                        self.assertTrue(path.endswith("Watch") or path.endswith("WatchJobs"), found)
                    else:
                        self.assertEqual(found.domain, "draftd", found)

    def test_text_that_is_not_utf8_is_refused_by_field(self):
        seen = 0
        for path, method in METHODS:
            if method.containing_service.full_name.startswith("grpc.reflection"):
                continue
            for name, message in string_fields(method.input_type):
                for data, reason in [(b"\xff", "INVALID_UTF8"), (b"caf\xe9", "INVALID_UTF8"),
                                     (b"\xed\xa0\x80", "INVALID_UTF8"), (b"a\0b", "NUL_IN_TEXT")]:
                    with self.subTest(path=path, field=name, data=data):
                        found = self.send(path, message(data))
                        self.assertEqual((found.code, found.reason, found.fields),
                                         (Code.INVALID_ARGUMENT, reason, [name]), found)
                        seen += 1
        self.assertGreater(seen, 100)

    def test_fields_twice(self):
        spec = field(1, b"name")
        found = self.send("/draftd.v1.JobService/CreateJob", field(1, spec) + field(1, spec))
        self.assertEqual((found.code, found.fields), (Code.INVALID_ARGUMENT, ["spec"]))

    def test_oversized_messages(self):
        for size in (1 << 20, (1 << 20) + 1, 5 << 20, 64 << 20):
            found = self.send("/draftd.v1.JobService/CreateJob", field(2, b"x" * (size - 4)))
            expected = Code.INVALID_ARGUMENT if size == 1 << 20 else Code.RESOURCE_EXHAUSTED
            self.assertEqual(found.code, expected, (size, found))

    def test_bomb_of_small_messages(self):
        bomb = field(1, b"\x22\x00" * 500000)  # half a million empty rewards
        begin = self.daemon.memory_kib()
        for _ in range(10):
            found = self.send("/draftd.v1.JobService/CreateJob", bomb)
            self.assertEqual((found.code, found.reason), (Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"), found)
        self.grew_at_most(begin, 64 * MIB)

    def test_compressed_messages_are_not_unpacked(self):
        call = self.daemon.channel.unary_unary("/draftd.v1.JobService/GetJob")
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"\0" * 500000, timeout=SECONDS, compression=grpc.Compression.Gzip)
        self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)

    def test_unknown_methods(self):
        for path in ("/draftd.v1.JobService/Nothing", "/no.Service/X", "/", "/draftd.v1.JobService/GetJob/",
                     "/draftd.v1.JobService/getjob", "/" + "x" * 3000):
            found = self.send(path, b"", timeout=5)
            self.assertEqual((found.code, found.reason), (Code.UNIMPLEMENTED, "UNKNOWN_METHOD"), (path, found))

    def test_no_message_and_two_messages(self):
        call = self.daemon.channel.stream_unary("/draftd.v1.JobService/GetJob")
        with self.assertRaises(grpc.RpcError) as caught:
            call(iter([]), timeout=SECONDS)
        self.assertEqual(Error(caught.exception).reason, "MALFORMED_REQUEST")
        two = [pb.jobs.GetJobRequest(job_id=f"job-{n}").SerializeToString() for n in (901, 902)]
        with self.assertRaises(grpc.RpcError) as caught:
            call(iter(two), timeout=SECONDS)
        self.assertIn("job-901", caught.exception.details())

    def test_longest_errors_keep_their_code(self):
        for text in ("\u2713" * 300, "x" * 1000, "%" * 1000):
            found = self.send("/draftd.v1.JobService/CreateJob",
                              pb.jobs.CreateJobRequest(spec=pb.jobs.JobSpec(model=text)).SerializeToString())
            self.assertEqual((found.code, found.fields), (Code.INVALID_ARGUMENT, ["spec.model"]), found)

    def test_huge_metadata(self):
        channel = self.daemon.connect()
        for size in (9000, 20000, 200000):
            call = channel.unary_unary("/draftd.v1.JobService/GetJob")
            with self.assertRaises(grpc.RpcError) as caught:
                call(b"", timeout=SECONDS, metadata=[("big", "x" * size)])
            self.assertIn(caught.exception.code(), (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE, Code.INTERNAL))
        channel.close()

    def test_garbage_bytes_on_the_socket(self):
        source = random.Random(2)
        huge = struct.pack(">I", 0xFFFFFF)[1:] + bytes([0, 0, 0, 0, 0, 1])
        for data in [b"\0" * 100, source.randbytes(100000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
                     b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), PREFACE + source.randbytes(50000),
                     PREFACE + huge + bytes(100000), PREFACE + frame(4, 0, 0, bytes(5)),
                     PREFACE + frame(4, 0, 0) + frame(1, 4, 2, b"\xff" * 50), PREFACE + frame(4, 0, 0) +
                     frame(9, 4, 1, b"x"), PREFACE + frame(4, 0, 0) + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3]:
            with self.subTest(data=data[:30]):
                s = self.raw()
                self.throw(s, data)
                s.shutdown(socket.SHUT_WR)
                self.closes(s)
                self.info(timeout=5)

    def test_half_open_connections(self):
        opened = []
        for data in [b"", PREFACE[:10], PREFACE, PREFACE + frame(4, 0, 0)] * 10:
            s = self.raw()
            self.throw(s, data)
            opened.append(s)
        self.info(timeout=5)
        for s in opened:
            s.close()

    def test_streams_opened_and_reset_at_once(self):
        s = self.raw()
        out = PREFACE + frame(4, 0, 0)
        for number in range(1, 4000, 2):
            out += frame(1, 4, number, REQUEST_HEADERS) + frame(3, 0, number, b"\0\0\0\x08")
        reader = threading.Thread(target=self.closes, args=(s,))
        reader.start()
        self.throw(s, out)
        self.info(timeout=10)
        s.shutdown(socket.SHUT_RDWR)
        reader.join()

    def test_headers_without_an_end(self):
        s = self.raw()
        self.throw(s, PREFACE + frame(4, 0, 0) + frame(1, 0, 1, REQUEST_HEADERS))
        begin = self.daemon.memory_kib()
        more = b"".join(header(b"a", b"y" * 120) for _ in range(100))
        s.settimeout(5)
        self.throw(s, frame(9, 0, 1, more) * 1000)
        self.info(timeout=10)
        self.grew_at_most(begin, 32 * MIB)

    def test_hundreds_of_connections(self):
        sockets = []
        for _ in range(700):
            try:
                sockets.append(self.raw())
            except (BlockingIOError, ConnectionRefusedError):
                time.sleep(0.01)
        self.info(timeout=5)  # on the connection that was there before
        eventually(lambda: self.daemon.descriptors() <= self.first_descriptors + 520)
        for s in sockets:
            s.close()
        eventually(lambda: self.daemon.descriptors() <= self.first_descriptors + 2)
        channel = self.daemon.connect()
        pb.system_grpc.SystemServiceStub(channel).GetServerInfo(pb.system.GetServerInfoRequest(), timeout=SECONDS)
        channel.close()

    def test_cancelled_streams_and_deadlines(self):
        for number in range(300):
            stream = self.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest())
            if number % 2:
                next(stream)
            stream.cancel()
        for _ in range(200):
            try:
                self.daemon.jobs.GetJob(pb.jobs.GetJobRequest(job_id="job-1"), timeout=0.0005)
            except grpc.RpcError as error:
                self.assertIn(error.code(), (Code.DEADLINE_EXCEEDED, Code.NOT_FOUND))
        streams = [self.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest(), timeout=0.2) for _ in range(90)]
        for stream in streams:
            with self.assertRaises(grpc.RpcError) as caught:
                for _ in stream:
                    pass
            self.assertEqual(caught.exception.code(), Code.DEADLINE_EXCEEDED)

    def test_many_submits_at_once_do_not_stop_others(self):
        spec = tiny_spec(self.daemon.folder)
        request = pb.jobs.CreateJobRequest(spec=spec, validate_only=True)
        calls = [self.daemon.jobs.CreateJob.future(request, timeout=120) for _ in range(95)]
        worst = 0
        while not all(call.done() for call in calls):
            begin = time.monotonic()
            self.info(timeout=5)
            worst = max(worst, time.monotonic() - begin)
            for call in calls[4:]:
                call.cancel()  # a client that went away wants nothing done
            time.sleep(0.05)
        self.assertLess(worst, 3)
        for call in calls[:4]:
            error = call.exception()
            if error is not None:  # the two that are checked at a time may take long: then those behind are told
                self.assertIn(error.code(), (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED), error)

    def test_clients_that_stop_reading_while_a_job_runs(self):
        # two that ask for a stream and never read: one within grpcio, one stopped as a whole process
        silent = self.daemon.connect()
        streams = [pb.jobs_grpc.JobServiceStub(silent).WatchJobs(pb.jobs.WatchJobsRequest()) for _ in range(20)]
        program = ("import grpc, sys\n"
                   "c = grpc.insecure_channel('unix:' + sys.argv[1])\n"
                   "s = c.unary_stream('/draftd.v1.JobService/WatchJobs')(b'')\n"
                   "next(s); print('watching', flush=True)\n"
                   "for m in s: pass\n")
        child = subprocess.Popen([sys.executable, "-c", program, self.daemon.socket], stdout=subprocess.PIPE)
        self.addCleanup(child.kill)
        self.assertEqual(child.stdout.readline(), b"watching\n")
        child.send_signal(signal.SIGSTOP)
        begin = self.daemon.memory_kib()
        job = self.daemon.submit(tiny_spec(self.daemon.folder, steps=6))
        ended = self.daemon.wait(job.id, lambda j: j.state in ENDED)
        self.assertEqual(ended.state, pb.jobs.Job.STATE_SUCCEEDED, ended)
        self.grew_at_most(begin, 32 * MIB)
        # the silent ones lost nothing: they read it all later
        last = None
        for message in streams[0]:
            last = message
            if message.event.job.state == pb.jobs.Job.STATE_SUCCEEDED:
                break
        self.assertEqual(last.event.job_id, job.id)
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.wait()
        child.stdout.close()
        silent.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", required=True)
    known, rest = parser.parse_known_args()
    BUILD = os.path.abspath(known.build)
    unittest.main(argv=[sys.argv[0]] + rest, verbosity=2, warnings="ignore")
