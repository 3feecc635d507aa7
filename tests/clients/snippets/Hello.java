// Sends a message and receives it. Needs org.apache.rocketmq:rocketmq-client:5.5.0 (4.9.8 works as well).
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.concurrent.CountDownLatch;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

public class Hello {
    public static void main(String[] args) throws Exception {
        var producer = new DefaultMQProducer("hello-java-producer");
        producer.setNamesrvAddr("127.0.0.1:9876");
        producer.start();
        System.out.println(producer.send(new Message("hello-java", "Hello from Java".getBytes(UTF_8))));

        var received = new CountDownLatch(1);
        var consumer = new DefaultMQPushConsumer("hello-java-consumer");
        consumer.setNamesrvAddr("127.0.0.1:9876");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("hello-java", "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> System.out.println(new String(message.getBody(), UTF_8)));
            received.countDown();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        received.await();
        consumer.shutdown();
        producer.shutdown();
    }
}
