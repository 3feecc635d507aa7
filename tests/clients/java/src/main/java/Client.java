// The client program for Apache's Java client; verbs and lines are described in tests/clients/README.md.

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

public final class Client {
    private static final Set<String> VERBS =
        new HashSet<>(Arrays.asList("produce", "consume", "pull", "big", "chinese"));
    private static final Set<String> FLAGS = new HashSet<>(Arrays.asList(
        "namesrv", "topic", "group", "count", "threads", "mode", "tag", "body", "first", "keys", "timeout", "queue",
        "subscription", "model", "listener", "linger", "fail-until", "instance", "max-reconsume", "kind", "size"));
    /** Few enough that a batch of large bodies stays below the broker's limit. */
    private static final int BATCH_COUNT = 16;
    /** Asynchronous sends under way; more would only wait inside the library. */
    private static final int ASYNC_COUNT_MAX = 128;
    /** Instead of 3 s: a loaded machine with few cores is no failure of the broker. */
    private static final int REQUEST_TIMEOUT_MS = 15_000;

    private static final PrintStream OUT =
        new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    private static final Map<String, String> flags = new HashMap<>();

    public static void main(String[] args) {
        // The library writes to System.out here and there; stdout belongs to our lines.
        System.setOut(System.err);
        int exit = 1;
        try {
            exit = run(args);
        } catch (Usage wrong) {
            System.err.println("wrong use: " + wrong.getMessage());
            exit = 2;
        } catch (Throwable cause) {
            cause.printStackTrace();
        }
        OUT.flush();
        // The library's threads are not all daemons.
        Runtime.getRuntime().halt(exit);
    }

    private static int run(String[] args) throws Exception {
        if (args.length == 0 || !VERBS.contains(args[0])) {
            throw new Usage("the verb must be one of " + VERBS);
        }
        for (int i = 1; i < args.length; i += 2) {
            if (!args[i].startsWith("--") || !FLAGS.contains(args[i].substring(2)) || args.length <= i + 1) {
                throw new Usage(args[i] + " is no flag, or has no value");
            }
            flags.put(args[i].substring(2), args[i + 1]);
        }
        switch (args[0]) {
            case "produce": return produce();
            case "consume": return consume();
            case "pull": return "pull".equals(text("kind", "lite")) ? pull() : litePull();
            case "big": return big();
            default: return chinese();
        }
    }

    // ------------------------------------------------------------------ producing

    private static int produce() throws Exception {
        DefaultMQProducer producer = startedProducer();
        int count = number("count", 1);
        int threads = Math.max(1, Math.min(number("threads", 1), Math.max(1, count)));
        String mode = text("mode", "sync");
        if (!Arrays.asList("sync", "async", "oneway", "batch").contains(mode)) {
            throw new Usage("--mode " + mode);
        }
        MessageQueue queue = null;
        if (flags.containsKey("queue")) {
            List<MessageQueue> queues = new ArrayList<>(producer.fetchPublishMessageQueues(topic()));
            Collections.sort(queues);
            queue = queues.get(number("queue", 0));
        }
        AtomicInteger sent = new AtomicInteger();
        Semaphore underWay = new Semaphore(ASYNC_COUNT_MAX);
        MessageQueue chosen = queue;
        List<Thread> senders = new ArrayList<>();
        for (int t = 0; t < threads; t++) {
            // Each thread sends one run of indexes, in order.
            int from = (int) ((long) count * t / threads);
            int to = (int) ((long) count * (t + 1) / threads);
            Thread sender = new Thread(() -> {
                int step = mode.equals("batch") ? BATCH_COUNT : 1;
                for (int i = from; i < to; i += step) {
                    List<Message> messages = new ArrayList<>();
                    for (int k = i; k < Math.min(i + step, to); k++) {
                        messages.add(message(number("first", 0) + k));
                    }
                    send(producer, mode, messages, chosen, sent, underWay);
                }
            });
            sender.setDaemon(true);
            sender.start();
            senders.add(sender);
        }
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(number("timeout", 60));
        for (Thread sender : senders) {
            sender.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime())));
        }
        underWay.tryAcquire(ASYNC_COUNT_MAX, Math.max(1, deadline - System.nanoTime()), TimeUnit.NANOSECONDS);
        int failed = count - sent.get();
        if (mode.equals("oneway")) {
            // A one-way send is done when it left the process: give the last ones the time to leave.
            Thread.sleep(500);
        }
        producer.shutdown();
        OUT.println("{\"sent\":" + sent + ",\"failed\":" + failed + "}");
        return failed == 0 ? 0 : 1;
    }

    private static DefaultMQProducer startedProducer() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(text("group", "java-producer"));
        producer.setNamesrvAddr(required("namesrv"));
        producer.setMqClientApiTimeout(REQUEST_TIMEOUT_MS);
        producer.setSendMsgTimeout(REQUEST_TIMEOUT_MS);
        // The sizes under test are those on the wire, so nothing is compressed.
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.setMaxMessageSize(Math.max(producer.getMaxMessageSize(), number("size", 0) + 1024));
        producer.start();
        return producer;
    }

    private static Message message(int index) {
        byte[] body = (text("body", "m") + "-" + index).getBytes(StandardCharsets.UTF_8);
        Message message = new Message(topic(), flags.get("tag"), body);
        if (!"no".equals(flags.get("keys"))) {
            message.setKeys("k" + index);
        }
        message.putUserProperty("index", String.valueOf(index));
        message.putUserProperty("city", "北京");
        return message;
    }

    private static void send(DefaultMQProducer producer, String mode, List<Message> messages, MessageQueue queue,
        AtomicInteger sent, Semaphore underWay) {
        Message first = messages.get(0);
        try {
            switch (mode) {
                case "sync":
                    acknowledged(messages, queue == null ? producer.send(first) : producer.send(first, queue), sent);
                    break;
                case "batch":
                    acknowledged(messages, queue == null ? producer.send(messages) : producer.send(messages, queue), sent);
                    break;
                case "oneway":
                    if (queue == null) {
                        producer.sendOneway(first);
                    } else {
                        producer.sendOneway(first, queue);
                    }
                    line("{\"index\":" + first.getUserProperty("index") + ",\"id\":" + quoted(MessageClientIDSetter.getUniqID(first)) + "}");
                    sent.incrementAndGet();
                    break;
                default:
                    underWay.acquire();
                    SendCallback callback = new SendCallback() {
                        @Override
                        public void onSuccess(SendResult result) {
                            acknowledged(messages, result, sent);
                            underWay.release();
                        }

                        @Override
                        public void onException(Throwable cause) {
                            System.err.println("message " + first.getUserProperty("index") + ": " + cause);
                            underWay.release();
                        }
                    };
                    if (queue == null) {
                        producer.send(first, callback);
                    } else {
                        producer.send(first, queue, callback);
                    }
            }
        } catch (Exception cause) {
            System.err.println("message " + first.getUserProperty("index") + ": " + cause);
            if (mode.equals("async")) {
                underWay.release();
            }
        }
    }

    private static void acknowledged(List<Message> messages, SendResult result, AtomicInteger sent) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            System.err.println("message " + messages.get(0).getUserProperty("index") + ": " + result);
            return;
        }
        for (int k = 0; k < messages.size(); k++) {
            // The messages of a batch stand one behind the other in their queue.
            line("{\"index\":" + messages.get(k).getUserProperty("index")
                + ",\"id\":" + quoted(MessageClientIDSetter.getUniqID(messages.get(k)))
                + ",\"broker\":" + quoted(result.getMessageQueue().getBrokerName())
                + ",\"queue\":" + result.getMessageQueue().getQueueId()
                + ",\"offset\":" + (result.getQueueOffset() + k) + "}");
            sent.incrementAndGet();
        }
    }

    private static int big() throws Exception {
        DefaultMQProducer producer = startedProducer();
        byte[] body = new byte[number("size", 4 * 1024 * 1024)];
        Arrays.fill(body, (byte) 'x');
        String answer;
        try {
            SendResult result = producer.send(new Message(topic(), body));
            answer = "{\"status\":\"ok\",\"id\":" + quoted(result.getMsgId()) + "}";
        } catch (MQBrokerException refusal) {
            answer = refused(refusal.getResponseCode(), refusal.getErrorMessage());
        } catch (MQClientException refusal) {
            answer = refused(refusal.getResponseCode(), refusal.getErrorMessage());
        }
        producer.shutdown();
        OUT.println(answer);
        return 0;
    }

    private static String refused(int code, String message) {
        return "{\"status\":\"refused\",\"code\":" + code + ",\"message\":" + quoted(message) + "}";
    }

    private static int chinese() throws Exception {
        DefaultMQProducer producer = startedProducer();
        Message message = new Message(topic(), "标签", "键", "你好，世界".getBytes(StandardCharsets.UTF_8));
        message.putUserProperty("名", "值");
        SendResult result = producer.send(message);
        producer.shutdown();
        boolean sent = result.getSendStatus() == SendStatus.SEND_OK;
        OUT.println("{\"index\":0,\"id\":" + quoted(result.getMsgId())
            + ",\"broker\":" + quoted(result.getMessageQueue().getBrokerName())
            + ",\"queue\":" + result.getMessageQueue().getQueueId()
            + ",\"offset\":" + result.getQueueOffset() + "}");
        OUT.println("{\"sent\":" + (sent ? 1 : 0) + ",\"failed\":" + (sent ? 0 : 1) + "}");
        return sent ? 0 : 1;
    }

    // ------------------------------------------------------------------ consuming

    /** What was handled so far, counted once for each distinct index. */
    private static final class Handled {
        private final Set<String> seen = new HashSet<>();
        private final int wanted = number("count", Integer.MAX_VALUE);
        private final CountDownLatch enough = new CountDownLatch(1);

        synchronized void add(MessageExt message) {
            String index = message.getUserProperty("index");
            seen.add(index == null ? message.getMsgId() : index);
            if (wanted <= seen.size()) {
                enough.countDown();
            }
        }

        synchronized int count() {
            return seen.size();
        }
    }

    private static int consume() throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(required("group"));
        consumer.setNamesrvAddr(required("namesrv"));
        consumer.setMqClientApiTimeout(REQUEST_TIMEOUT_MS);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic(), text("subscription", "*"));
        if ("broadcasting".equals(flags.get("model"))) {
            setBroadcasting(consumer);
        }
        if (flags.containsKey("instance")) {
            consumer.setInstanceName(flags.get("instance"));
        }
        if (flags.containsKey("max-reconsume")) {
            consumer.setMaxReconsumeTimes(number("max-reconsume", 16));
        }
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        // So that what is being handled at shutdown is still committed.
        consumer.setAwaitTerminationMillisWhenShutdown(2_000);
        int failUntil = number("fail-until", 0);
        Handled handled = new Handled();
        if ("orderly".equals(flags.get("listener"))) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) ->
                handle(messages, context.getMessageQueue(), failUntil, handled)
                    ? ConsumeOrderlyStatus.SUCCESS : ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT);
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
                handle(messages, context.getMessageQueue(), failUntil, handled)
                    ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER);
        }
        consumer.start();
        OUT.println("{\"ready\":true}");
        endWithStdin(handled.enough);
        handled.enough.await(number("timeout", 60), TimeUnit.SECONDS);
        Thread.sleep(1000L * number("linger", 2));
        consumer.shutdown();
        OUT.println("{\"handled\":" + handled.count() + "}");
        return 0;
    }

    /** The library hands out one message a call unless told otherwise; more are answered alike. */
    private static boolean handle(List<MessageExt> messages, MessageQueue queue, int failUntil, Handled handled) {
        boolean allOk = true;
        for (MessageExt message : messages) {
            boolean ok = failUntil <= message.getReconsumeTimes();
            delivered(message, queue, ok);
            if (ok) {
                handled.add(message);
            }
            allOk &= ok;
        }
        return allOk;
    }

    /** The type of the model lives in another package since 5.0, so it cannot be named here. */
    private static void setBroadcasting(DefaultMQPushConsumer consumer) throws Exception {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                for (Object model : method.getParameterTypes()[0].getEnumConstants()) {
                    if (model.toString().equals("BROADCASTING")) {
                        method.invoke(consumer, model);
                        return;
                    }
                }
            }
        }
        throw new IllegalStateException("this library has no broadcasting model");
    }

    private static void endWithStdin(CountDownLatch end) {
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() != -1) { }
            } catch (IOException closed) {
                // As good as its end.
            }
            end.countDown();
        });
        reader.setDaemon(true);
        reader.start();
    }

    @SuppressWarnings("deprecation") // the old pull consumer is deprecated, and in use
    private static int pull() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(required("group"));
        consumer.setNamesrvAddr(required("namesrv"));
        consumer.setMqClientApiTimeout(REQUEST_TIMEOUT_MS);
        consumer.start();
        Handled handled = new Handled();
        Map<MessageQueue, Long> reached = new TreeMap<>();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic())) {
            reached.put(queue, 0L);
        }
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(number("timeout", 60));
        while (0 < handled.enough.getCount() && System.nanoTime() < deadline) {
            boolean any = false;
            for (MessageQueue queue : reached.keySet()) {
                PullResult result = consumer.pull(queue, text("subscription", "*"), reached.get(queue), 32);
                if (result.getPullStatus() == PullStatus.FOUND) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        delivered(message, queue, null);
                        handled.add(message);
                    }
                }
                any |= reached.get(queue) < result.getNextBeginOffset();
                reached.put(queue, result.getNextBeginOffset());
            }
            if (!any) {
                Thread.sleep(100);
            }
        }
        for (Map.Entry<MessageQueue, Long> entry : reached.entrySet()) {
            // Without a subscription the library does not store by itself what was updated.
            consumer.updateConsumeOffset(entry.getKey(), entry.getValue());
            consumer.getOffsetStore().updateConsumeOffsetToBroker(entry.getKey(), entry.getValue(), false);
        }
        consumer.shutdown();
        OUT.println("{\"handled\":" + handled.count() + "}");
        return 0;
    }

    private static int litePull() throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(required("group"));
        consumer.setNamesrvAddr(required("namesrv"));
        consumer.setMqClientApiTimeout(REQUEST_TIMEOUT_MS);
        consumer.setAutoCommit(false);
        consumer.setPullBatchSize(32);
        consumer.setSubExpressionForAssign(topic(), text("subscription", "*"));
        // Not by seek: the library starts to pull in assign, and seek does not wait for what is on its way. That
        // batch then comes twice.
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.start();
        Handled handled = new Handled();
        consumer.assign(new ArrayList<>(consumer.fetchMessageQueues(topic())));
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(number("timeout", 60));
        while (0 < handled.enough.getCount() && System.nanoTime() < deadline) {
            for (MessageExt message : consumer.poll(500)) {
                delivered(message, new MessageQueue(message.getTopic(), message.getBrokerName(), message.getQueueId()), null);
                handled.add(message);
            }
        }
        consumer.commitSync();
        consumer.shutdown();
        OUT.println("{\"handled\":" + handled.count() + "}");
        return 0;
    }

    // ------------------------------------------------------------------ lines and flags

    private static void delivered(MessageExt message, MessageQueue queue, Boolean ok) {
        String index = message.getUserProperty("index");
        line("{\"index\":" + (index == null ? "null" : index)
            + ",\"id\":" + quoted(message.getMsgId())
            + ",\"broker\":" + quoted(queue.getBrokerName())
            + ",\"queue\":" + queue.getQueueId()
            + ",\"offset\":" + message.getQueueOffset()
            + ",\"tag\":" + quoted(message.getTags())
            + ",\"body\":" + quoted(new String(message.getBody(), StandardCharsets.UTF_8))
            + ",\"keys\":" + quoted(message.getKeys())
            + ",\"city\":" + quoted(message.getUserProperty("city"))
            + ",\"reconsume\":" + message.getReconsumeTimes()
            + ",\"topic\":" + quoted(message.getTopic())
            + (ok == null ? "" : ",\"ok\":" + ok) + "}");
    }

    private static void line(String json) {
        synchronized (OUT) {
            OUT.println(json);
        }
    }

    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }

    private static String topic() {
        return required("topic");
    }

    private static String required(String flag) {
        if (!flags.containsKey(flag)) {
            throw new Usage("--" + flag + " is missing");
        }
        return flags.get(flag);
    }

    private static String text(String flag, String otherwise) {
        return flags.getOrDefault(flag, otherwise);
    }

    private static int number(String flag, int otherwise) {
        try {
            return flags.containsKey(flag) ? Integer.parseInt(flags.get(flag)) : otherwise;
        } catch (NumberFormatException wrong) {
            throw new Usage("--" + flag + " " + flags.get(flag) + " is no number");
        }
    }

    private static final class Usage extends RuntimeException {
        Usage(String message) {
            super(message);
        }
    }
}
