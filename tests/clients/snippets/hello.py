# Sends a message and receives it. Needs rocketmq 0.4.4 from PyPI.
import threading

from rocketmq.client import Message, Producer, PushConsumer

producer = Producer("hello-python-producer")
producer.set_namesrv_addr("127.0.0.1:9876")
producer.start()
message = Message("hello-python")
message.set_body("Hello from Python")
print(producer.send_sync(message))

received = threading.Event()


def listen(message):
    print(message.body.decode())
    received.set()


consumer = PushConsumer("hello-python-consumer")
consumer.set_namesrv_addr("127.0.0.1:9876")
consumer.subscribe("hello-python", listen)
consumer.start()
received.wait()
consumer.shutdown()
producer.shutdown()
