"""The client program on PyPI's rocketmq 0.4.4 (the C++ client): the verbs and lines of tests/clients/README.md."""

import argparse
import collections
import ctypes
import glob
import itertools
import json
import os
import re
import sys
import threading
import time

# The native library may print; stdout belongs to the JSON lines alone.
LINES = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
os.dup2(2, 1)

from rocketmq.client import (  # noqa: E402
    Message, Producer, PullConsumer, PushConsumer, RecvMessage, SendStatus,
)
from rocketmq.exceptions import RocketMQException, ffi_check  # noqa: E402
from rocketmq.ffi import (  # noqa: E402
    MessageModel, _CConsumeStatus, _CLogLevel, _CMessageQueue, _CPullStatus, dll,
)

EXIT_FAILED, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 3
BATCH_COUNT = 10
ASYNC_IN_FLIGHT_MAX = 64
PULL_COUNT = 32
SEND_TIMEOUT_MS = 5000
SEND_TRIES = 5
# So that a broker that restarts does not cost all the messages that are left.
FAILURE_PAUSE_SECONDS = 0.1
CALLBACK_WAIT_SECONDS = 15


class Unsupported(Exception):
    """What the library cannot do."""


def parse(arguments):
    parser = argparse.ArgumentParser(prog="run", allow_abbrev=False)
    parser.add_argument("verb", choices=["produce", "consume", "pull", "big", "chinese"])
    parser.add_argument("--namesrv", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="python")
    parser.add_argument("--mode", default="sync", choices=["sync", "async", "oneway", "batch"])
    parser.add_argument("--tag", default="")
    parser.add_argument("--body", default="m")
    parser.add_argument("--keys", default="yes", choices=["yes", "no"])
    parser.add_argument("--subscription", default="*")
    parser.add_argument("--model", default="clustering", choices=["clustering", "broadcasting"])
    parser.add_argument("--listener", default="concurrent", choices=["concurrent", "orderly"])
    parser.add_argument("--instance")
    parser.add_argument("--kind", default="pull", choices=["lite", "pull"])
    for name, default in [("count", 1), ("threads", 1), ("first", 0), ("timeout", 60), ("linger", 2),
                          ("fail-until", 0), ("size", 0), ("queue", None), ("max-reconsume", None)]:
        parser.add_argument("--" + name, type=int, default=default)
    return parser.parse_args(arguments)


PRINT_LOCK = threading.Lock()


def print_line(line):
    with PRINT_LOCK:
        LINES.write(json.dumps(line, ensure_ascii=False) + "\n")
        LINES.flush()


def text(value):
    return (value or b"").decode("utf-8", errors="replace")


# What the C++ library knows and its C interface leaves out, by the names it exports. Both receive the
# object that the C interface hands out as its handle.
store_id = dll._ZNK8rocketmq12MQMessageExt14getOffsetMsgIdEv
store_id.argtypes = [ctypes.c_void_p]
store_id.restype = ctypes.POINTER(ctypes.c_char_p)  # A std::string of this build is a pointer to its text.
set_consume_from_where = dll._ZN8rocketmq21DefaultMQPushConsumer19setConsumeFromWhereENS_16ConsumeFromWhereE
set_consume_from_where.argtypes = [ctypes.c_void_p, ctypes.c_int]
set_consume_from_where.restype = None
CONSUME_FROM_FIRST_OFFSET = 4


def store_address(handle):
    """The address of the broker that stored a message: its offset id is address, port, position in hex."""
    offset_id = text(store_id(handle)[0])
    if not re.fullmatch("[0-9A-F]{32}", offset_id):
        return ""
    address = [int(offset_id[i:i + 2], 16) for i in (6, 4, 2, 0)]  # This library turns the address around.
    return "%d.%d.%d.%d:%d" % (*address, int(offset_id[8:16], 16))


def received(handle, broker=None):
    message = RecvMessage(handle)
    index = text(message.get_property("index"))
    return {
        "index": int(index) if index.isdigit() else -1,
        "id": message.id,
        "broker": store_address(handle) if broker is None else broker,
        "queue": message.queue_id,
        "offset": message.queue_offset,
        "tag": text(message.tags),
        "body": text(message.body),
        "keys": text(message.keys),
        "city": text(message.get_property("city")),
        "reconsume": message.reconsume_times,
        "topic": message.topic,
    }


class Progress:
    """Counts distinct messages and says when there are enough."""

    def __init__(self, enough):
        self.enough = enough
        self.seen = set()
        self.lock = threading.Lock()
        self.reached = threading.Event()

    def add(self, line):
        with self.lock:
            self.seen.add(line["index"] if line["index"] >= 0 else line["id"])
            if len(self.seen) >= self.enough:
                self.reached.set()

    def count(self):
        with self.lock:
            return len(self.seen)


def started_producer(args):
    producer = Producer(args.group, timeout=SEND_TIMEOUT_MS)
    producer.set_namesrv_addr(args.namesrv)
    ffi_check(dll.SetProducerInstanceName(producer._handle, b"produce-%d" % os.getpid()))
    ffi_check(dll.SetProducerLogLevel(producer._handle, _CLogLevel.WARN))
    return producer


class Sending:
    """One run of produce: which messages are sent, and what became of them."""

    def __init__(self, args, producer):
        self.args = args
        self.producer = producer
        self.indexes = iter(range(args.first, args.first + args.count))
        self.deadline = time.monotonic() + args.timeout
        self.lock = threading.Lock()
        self.sent = 0
        self.first_error = None
        self.paused_until = 0
        self.again = []
        self.in_flight = threading.Semaphore(ASYNC_IN_FLIGHT_MAX)

    def take(self, step):
        """The next indexes to send; none when all are taken or time is up."""
        time.sleep(max(0, self.paused_until - time.monotonic()))
        if time.monotonic() > self.deadline:
            return []
        with self.lock:
            return list(itertools.islice(self.indexes, step))

    def message(self, index):
        message = Message(self.args.topic)
        message.set_body("%s-%d" % (self.args.body, index))
        if self.args.tag:
            message.set_tags(self.args.tag)
        if self.args.keys == "yes":
            message.set_keys("k%d" % index)
        message.set_property("index", str(index))
        message.set_property("city", "北京")
        return message

    def acknowledge(self, indexes, result):
        if result.status != SendStatus.OK:
            self.fail("send status %s" % result.status.name)
            return
        ids = result.msg_id.split(",")
        for i, index in enumerate(indexes):
            # The library tells neither broker nor queue. A batch is answered with its first offset.
            print_line({"index": index, "id": ids[i] if i < len(ids) else "", "broker": "",
                        "queue": -1, "offset": result.offset + i})
        with self.lock:
            self.sent += len(indexes)

    def fail(self, reason):
        with self.lock:
            self.first_error = self.first_error or str(reason)
            self.paused_until = time.monotonic() + FAILURE_PAUSE_SECONDS

    def attempt(self, call):
        """Calls until the library sends. It gives up without sending when threads meet at its table of
        connections, and says "No route info" to that as to everything else."""
        for tries in itertools.count(1):
            try:
                return call()
            except RocketMQException as error:
                if tries == SEND_TRIES or time.monotonic() > self.deadline:
                    self.fail(error)
                    return None
                time.sleep(0.1)

    def select(self, size, _message, _argument):
        if self.args.queue >= size:  # The library would read past the end of its list.
            print("produce: topic %s has only %d queues" % (self.args.topic, size), file=sys.stderr, flush=True)
            os._exit(EXIT_FAILED)
        return self.args.queue

    def sync(self, indexes):
        message = self.message(indexes[0])
        if self.args.queue is None:
            result = self.attempt(lambda: self.producer.send_sync(message))
        else:
            # The library's own tries go to other queues than the selector's, also where nothing was sent.
            result = self.attempt(lambda: self.producer.send_orderly(
                message, 0, retry_times=0, queue_selector=self.select))
        if result:
            self.acknowledge(indexes, result)

    def batch(self, indexes):
        messages = [self.message(index) for index in indexes]
        result = self.attempt(lambda: self.producer.send_batch(messages))
        if result:
            self.acknowledge(indexes, result)

    def asynchronous(self, indexes):
        # The message must live until its callback: the library keeps a pointer to it.
        message = self.message(indexes[0])

        def succeeded(result):
            self.acknowledge(indexes, result)
            self.in_flight.release()
            return message

        def failed(_error):
            self.again.append(indexes)
            self.in_flight.release()
            return message

        self.in_flight.acquire()
        try:
            self.producer.send_async(message, succeeded, failed)
        except RocketMQException as error:
            failed(error)

    def send_again(self):
        """What failed asynchronously, in most cases without having been sent (see attempt); the error tells
        neither that nor anything else."""
        callbacks_end = time.monotonic() + CALLBACK_WAIT_SECONDS
        for _ in range(ASYNC_IN_FLIGHT_MAX):  # All of them free: no callback is outstanding.
            self.in_flight.acquire(timeout=max(0, callbacks_end - time.monotonic()))
        for indexes in self.again:
            self.sync(indexes)

    def oneway(self, indexes):
        message = self.message(indexes[0])

        def send():
            # Where threads meet (see attempt) the library drops a one-way message without a word.
            with self.lock:
                if self.args.queue is None:
                    self.producer.send_oneway(message)
                else:
                    self.producer.send_oneway_orderly(message, 0, queue_selector=self.select)
            return True

        if self.attempt(send):
            print_line({"index": indexes[0], "id": ""})
            with self.lock:
                self.sent += 1


def produce(args):
    if args.queue is not None and args.mode in ("async", "batch"):
        raise Unsupported("choice of the queue for %s sends" % args.mode)
    producer = started_producer(args)
    producer.start()
    sending = Sending(args, producer)
    send, step = {"sync": (sending.sync, 1), "async": (sending.asynchronous, 1),
                  "oneway": (sending.oneway, 1), "batch": (sending.batch, BATCH_COUNT)}[args.mode]

    def work():
        while indexes := sending.take(step):
            send(indexes)

    # The first send looks up the route, and meanwhile the library refuses those of other threads.
    send(sending.take(step))
    threads = [threading.Thread(target=work) for _ in range(args.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sending.send_again()
    if args.mode == "oneway":
        time.sleep(1)  # Nobody answers: what the library still holds must leave before it closes.
    producer.shutdown()
    failed = args.count - sending.sent
    print_line({"sent": sending.sent, "failed": failed})
    if failed:
        raise RocketMQException("%d of %d messages were not acknowledged within %d s; the first error: %s"
                                % (failed, args.count, args.timeout, sending.first_error))


def consume(args):
    if args.max_reconsume is not None:
        raise Unsupported("limit of the reconsume times that a consumer could set")
    model = MessageModel.BROADCASTING if args.model == "broadcasting" else MessageModel.CLUSTERING
    consumer = PushConsumer(args.group, orderly=args.listener == "orderly", message_model=model)
    consumer.set_namesrv_addr(args.namesrv)
    consumer.set_instance_name(args.instance or "consume-%d" % os.getpid())
    set_consume_from_where(consumer._handle, CONSUME_FROM_FIRST_OFFSET)
    ffi_check(dll.SetPushConsumerLogLevel(consumer._handle, _CLogLevel.WARN))
    progress = Progress(args.count)
    suspended = collections.Counter()

    def listen(_consumer, handle):
        line = received(handle)
        # The library does not count the times that it suspends a queue for a message.
        line["ok"] = max(line["reconsume"], suspended[line["id"]]) >= args.fail_until
        print_line(line)
        if not line["ok"]:
            if args.listener == "orderly":
                suspended[line["id"]] += 1
            return _CConsumeStatus.RECONSUME_LATER.value
        progress.add(line)
        return _CConsumeStatus.CONSUME_SUCCESS.value

    # PushConsumer.subscribe would turn every answer of ours into success: it can only fail by an exception,
    # and ctypes swallows that. So the listener is registered beneath it.
    ffi_check(dll.Subscribe(consumer._handle, args.topic.encode(), args.subscription.encode()))
    consumer._register_callback(listen)
    consumer.start()
    print_line({"ready": True})
    threading.Thread(target=lambda: (wait_for_stdin(), progress.reached.set()), daemon=True).start()
    progress.reached.wait(args.timeout)
    time.sleep(args.linger)
    consumer.shutdown()
    print_line({"handled": progress.count()})


def wait_for_stdin():
    while os.read(0, 4096):
        pass


def pull(args):
    """Reads all queues from their beginning. The library has no call to store what a pull consumer reached."""
    if args.kind == "lite":
        raise Unsupported("lite pull consumer")
    consumer = PullConsumer(args.group)
    consumer.set_namesrv_addr(args.namesrv)
    ffi_check(dll.SetPullConsumerLogLevel(consumer._handle, _CLogLevel.WARN))
    consumer.start()
    queues, count = ctypes.POINTER(_CMessageQueue)(), ctypes.c_int()
    ffi_check(dll.FetchSubscriptionMessageQueues(
        consumer._handle, args.topic.encode(), ctypes.pointer(queues), ctypes.pointer(count)))
    if count.value == 0:
        raise RocketMQException("topic %s has no queues" % args.topic)
    print_line({"ready": True})
    progress = Progress(args.count)
    offsets = [0] * count.value
    deadline = time.monotonic() + args.timeout
    while not progress.reached.is_set() and time.monotonic() < deadline:
        before = list(offsets)
        for i, offset in enumerate(before):
            offsets[i] = pull_once(consumer, queues[i], args.subscription, offset, progress)
        if offsets == before:
            time.sleep(0.1)
    consumer.shutdown()
    print("pull: offsets not stored, rocketmq 0.4.4 for Python has no way to", file=sys.stderr)
    print_line({"handled": progress.count()})


def pull_once(consumer, queue, expression, offset, progress):
    result = dll.Pull(consumer._handle, ctypes.pointer(queue), expression.encode(), offset, PULL_COUNT)
    if result.pullStatus == _CPullStatus.FOUND:
        for i in range(result.size):
            line = received(result.msgFoundList[i], broker=text(queue.brokerName))
            print_line(line)
            progress.add(line)
    after = offset if result.pullStatus == _CPullStatus.BROKER_TIMEOUT else result.nextBeginOffset
    dll.ReleasePullResult(result)
    return after


def big(args):
    producer = started_producer(args)
    producer.set_max_message_size(max(args.size, 1))
    # Compressed, a row of x would be small; the size must arrive as it is.
    dll.SetProducerCompressMsgBodyOverHowmuch.argtypes = [ctypes.c_void_p, ctypes.c_int]
    ffi_check(dll.SetProducerCompressMsgBodyOverHowmuch(producer._handle, args.size + 1))
    producer.start()
    message = Message(args.topic)
    message.set_body("x" * args.size)
    try:
        result = producer.send_sync(message)
        if result.status != SendStatus.OK:
            raise RocketMQException("send status %s" % result.status.name)
        print_line({"status": "ok", "id": result.msg_id})
    except RocketMQException:
        refusals = refusals_logged()
        if not refusals:
            raise
        message, code = refusals[-1]
        print_line({"status": "refused", "code": int(code), "message": message})
    producer.shutdown()


def refusals_logged():
    """What the broker said: the library's exception is "No route info" whatever the reason, only its log knows."""
    found = []
    for name in glob.glob(os.path.expanduser("~/logs/rocketmq-cpp/%d_*" % os.getpid())):
        with open(name, encoding="utf-8", errors="replace") as log:
            found += re.findall(r"processSendResponse error remark:(.*), error code:(\d+)", log.read())
    return found


def chinese(args):
    producer = started_producer(args)
    producer.start()
    message = Message(args.topic)
    message.set_body("你好，世界")
    message.set_tags("标签")
    message.set_keys("键")
    message.set_property("名", "值")
    sending = Sending(args, producer)
    sending.acknowledge([0], producer.send_sync(message))
    producer.shutdown()
    print_line({"sent": sending.sent, "failed": 1 - sending.sent})
    if sending.first_error:
        raise RocketMQException(sending.first_error)


def main():
    args = parse(sys.argv[1:])
    status = 0
    try:
        {"produce": produce, "consume": consume, "pull": pull, "big": big, "chinese": chinese}[args.verb](args)
    except Unsupported as missing:
        print("%s: rocketmq 0.4.4 for Python has no %s" % (args.verb, missing), file=sys.stderr)
        status = EXIT_UNSUPPORTED
    except RocketMQException as error:
        print("%s: %s" % (args.verb, error), file=sys.stderr)
        status = EXIT_FAILED
    sys.stderr.flush()
    os._exit(status)  # The library's destructors would shut down a second time, and wait.


main()
