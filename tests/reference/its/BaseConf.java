// Takes the place of the base class of Apache RocketMQ's integration tests, which would start Apache's
// brokers inside the test's process: this one leads the same tests to a cluster that runs already.
// Names and signatures are those that the published test classes were compiled against. What a test
// asks of a broker object itself (its message store, its configuration) cannot be answered here.

package org.apache.rocketmq.test.base;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import org.apache.rocketmq.broker.BrokerController;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.attribute.CQType;
import org.apache.rocketmq.common.attribute.TopicMessageType;
import org.apache.rocketmq.namesrv.NamesrvController;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyServerConfig;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.route.BrokerData;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.test.client.rmq.RMQAsyncSendProducer;
import org.apache.rocketmq.test.client.rmq.RMQNormalConsumer;
import org.apache.rocketmq.test.client.rmq.RMQNormalProducer;
import org.apache.rocketmq.test.client.rmq.RMQTransactionalProducer;
import org.apache.rocketmq.test.clientinterface.AbstractMQConsumer;
import org.apache.rocketmq.test.clientinterface.AbstractMQProducer;
import org.apache.rocketmq.test.factory.ConsumerFactory;
import org.apache.rocketmq.test.listener.AbstractListener;
import org.apache.rocketmq.test.util.MQAdminTestUtils;
import org.apache.rocketmq.test.util.MQRandomUtils;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

public class BaseConf {
    public static final String NAMESRV_ADDR = System.getProperty("its.namesrv", "127.0.0.1:9876");
    protected static final String CLUSTER_NAME = System.getProperty("its.cluster", "DefaultCluster");
    protected static final int BROKER_NUM = 3;
    protected static final int WAIT_TIME = 5;
    protected static final int CONSUME_TIME = 120_000;
    protected static final int QUEUE_NUMBERS = 8;
    protected static final String BROKER1_NAME;
    protected static final String BROKER2_NAME;
    protected static final String BROKER3_NAME;

    protected static NamesrvController namesrvController;
    protected static BrokerController brokerController1;
    protected static BrokerController brokerController2;
    protected static BrokerController brokerController3;
    protected static List<BrokerController> brokerControllerList = new ArrayList<>();
    protected static Map<String, BrokerController> brokerControllerMap = new HashMap<>();
    protected static List<Object> mqClients = new ArrayList<>();
    protected static boolean debug;

    static {
        IntegrationTestBase.initMQAdmin(NAMESRV_ADDR);
        List<String> names = new ArrayList<>();
        List<BrokerController> stands = new ArrayList<>();
        masters().forEach((name, address) -> {
            names.add(name);
            stands.add(idleController(name, address));
        });
        if (names.size() < BROKER_NUM) {
            throw new IllegalStateException("cluster " + CLUSTER_NAME + " at " + NAMESRV_ADDR + " has the masters "
                + names + ", and these tests need " + BROKER_NUM + "; start that many shards");
        }
        BROKER1_NAME = names.get(0);
        BROKER2_NAME = names.get(1);
        BROKER3_NAME = names.get(2);
        brokerController1 = stands.get(0);
        brokerController2 = stands.get(1);
        brokerController3 = stands.get(2);
    }

    /** The addresses of the cluster's masters, in the order of their names. */
    private static SortedMap<String, String> masters() {
        SortedMap<String, String> addresses = new TreeMap<>();
        DefaultMQAdminExt admin = new DefaultMQAdminExt(5_000);
        admin.setNamesrvAddr(NAMESRV_ADDR);
        try {
            admin.start();
            ClusterInfo cluster = admin.examineBrokerClusterInfo();
            for (Map.Entry<String, BrokerData> broker : cluster.getBrokerAddrTable().entrySet()) {
                String address = broker.getValue().getBrokerAddrs().get(MixAll.MASTER_ID);
                if (address != null && broker.getValue().getCluster().equals(CLUSTER_NAME)) {
                    addresses.put(broker.getKey(), address);
                }
            }
        } catch (Exception cause) {
            throw new IllegalStateException("the NameServer " + NAMESRV_ADDR + " does not tell its cluster", cause);
        } finally {
            admin.shutdown();
        }
        return addresses;
    }

    /** Some tests read a broker's name and address from its controller; this one never runs. */
    private static BrokerController idleController(String name, String address) {
        int colon = address.lastIndexOf(':');
        BrokerConfig broker = new BrokerConfig();
        broker.setBrokerClusterName(CLUSTER_NAME);
        broker.setBrokerName(name);
        broker.setBrokerIP1(address.substring(0, colon));
        broker.setListenPort(Integer.parseInt(address.substring(colon + 1)));
        NettyServerConfig server = new NettyServerConfig();
        server.setListenPort(broker.getListenPort());
        MessageStoreConfig store = new MessageStoreConfig();
        try {
            File folder = Files.createTempDirectory("its-" + name).toFile();
            folder.deleteOnExit();
            store.setStorePathRootDir(folder.getPath());
            return new BrokerController(broker, server, new NettyClientConfig(), store);
        } catch (IOException cause) {
            throw new IllegalStateException("no temporary folder for " + name, cause);
        }
    }

    /** The brokers were registered before the tests began. */
    public static void waitBrokerRegistered(String namesrv, String cluster, int expected) {
    }

    /** Dispatch cannot be watched from outside; a second is far more than it takes. */
    public boolean awaitDispatchMs(long timeMs) throws Exception {
        Thread.sleep(Math.min(timeMs, 1_000));
        return true;
    }

    public static Set<String> getBrokers() {
        return new LinkedHashSet<>(masters().keySet());
    }

    // ------------------------------------------------------------------ topics and groups

    public static String initTopic() {
        return initTopicWithName(MQRandomUtils.getRandomTopic());
    }

    public static String initTopic(TopicMessageType type) {
        return initTopicWithName(MQRandomUtils.getRandomTopic(), type);
    }

    public static String initTopicWithName(String topic) {
        return initTopicOnSampleTopicBroker(topic, CLUSTER_NAME);
    }

    public static String initTopicWithName(String topic, TopicMessageType type) {
        return initTopicOnSampleTopicBroker(topic, CLUSTER_NAME, type);
    }

    public static String initTopicOnSampleTopicBroker(String sample) {
        return initTopicOnSampleTopicBroker(MQRandomUtils.getRandomTopic(), sample);
    }

    public static String initTopicOnSampleTopicBroker(String sample, TopicMessageType type) {
        return initTopicOnSampleTopicBroker(MQRandomUtils.getRandomTopic(), sample, type);
    }

    public static String initTopicOnSampleTopicBroker(String topic, String where) {
        IntegrationTestBase.initTopic(topic, NAMESRV_ADDR, where, CQType.SimpleCQ);
        return topic;
    }

    public static String initTopicOnSampleTopicBroker(String topic, String where, TopicMessageType type) {
        IntegrationTestBase.initTopic(topic, NAMESRV_ADDR, where, type);
        return topic;
    }

    public static String initConsumerGroup() {
        return initConsumerGroup(MQRandomUtils.getRandomConsumerGroup());
    }

    public static String initConsumerGroup(String group) {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        return initConsumerGroup(config);
    }

    public static String initConsumerGroup(SubscriptionGroupConfig config) {
        MQAdminTestUtils.createSub(NAMESRV_ADDR, CLUSTER_NAME, config);
        return config.getGroupName();
    }

    // ------------------------------------------------------------------ clients, all ended by shutdown()

    private static <C> C kept(C client) {
        mqClients.add(client);
        return client;
    }

    public static DefaultMQAdminExt getAdmin(String namesrv) {
        DefaultMQAdminExt admin = new DefaultMQAdminExt(5_000);
        admin.setNamesrvAddr(namesrv);
        // Tests look for a new topic's route soon after they made it.
        admin.setPollNameServerInterval(100);
        return kept(admin);
    }

    public static RMQNormalProducer getProducer(String namesrv, String topic) {
        return kept(new RMQNormalProducer(namesrv, topic, false));
    }

    public static RMQNormalProducer getProducer(String namesrv, String topic, boolean tls) {
        return kept(new RMQNormalProducer(namesrv, topic, tls));
    }

    public static RMQNormalProducer getProducer(String namesrv, String topic, String group, String instance) {
        return kept(new RMQNormalProducer(namesrv, topic, group, instance));
    }

    public static RMQAsyncSendProducer getAsyncProducer(String namesrv, String topic) {
        return kept(new RMQAsyncSendProducer(namesrv, topic));
    }

    public static RMQTransactionalProducer getTransactionalProducer(String namesrv, String topic,
        TransactionListener listener) {
        return kept(new RMQTransactionalProducer(namesrv, topic, listener));
    }

    public static RMQNormalConsumer getConsumer(String namesrv, String topic, String expression,
        AbstractListener listener) {
        return getConsumer(namesrv, initConsumerGroup(), topic, expression, listener, false);
    }

    public static RMQNormalConsumer getConsumer(String namesrv, String topic, String expression,
        AbstractListener listener, boolean tls) {
        return getConsumer(namesrv, initConsumerGroup(), topic, expression, listener, tls);
    }

    public static RMQNormalConsumer getConsumer(String namesrv, String group, String topic, String expression,
        AbstractListener listener) {
        return getConsumer(namesrv, group, topic, expression, listener, false);
    }

    public static RMQNormalConsumer getConsumer(String namesrv, String group, String topic, String expression,
        AbstractListener listener, boolean tls) {
        return kept(ConsumerFactory.getRMQNormalConsumer(namesrv, group, topic, expression, listener, tls));
    }

    public static void shutdown() {
        shutdown(mqClients);
    }

    public static void shutdown(List<Object> clients) {
        for (Object client : List.copyOf(clients)) {
            if (client instanceof AbstractMQProducer) {
                ((AbstractMQProducer) client).shutdown();
            }
            if (client instanceof AbstractMQConsumer) {
                ((AbstractMQConsumer) client).shutdown();
            }
            if (client instanceof DefaultMQAdminExt) {
                ((DefaultMQAdminExt) client).shutdown();
            }
        }
        clients.clear();
    }
}
