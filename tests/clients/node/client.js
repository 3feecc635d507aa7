// The client program on npm's ali-ons 3.12.0: the verbs and lines of tests/clients/README.md.
'use strict';

const { parseArgs } = require('util');
const httpclient = require('urllib');
const { Consumer, Message, Producer } = require('ali-ons');

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_UNSUPPORTED = 3;

const ASYNC_IN_FLIGHT = 64;
const START_TIMEOUT_MS = 15000;
const CLOSE_TIMEOUT_MS = 15000;
// After a failure, so that a broker that restarts does not cost all the messages that are left.
const FAILURE_PAUSE_MS = 100;

console.log = console.error; // stdout belongs to the JSON lines alone.

class Unsupported extends Error {
  constructor(what) {
    super(`ali-ons 3.12.0 has no ${what}`);
  }
}

function usage(reason) {
  console.error(`${reason}\nuse: run produce|consume|pull|big|chinese --namesrv HOST:PORT --topic NAME [flags]`);
  process.exit(EXIT_USAGE);
}

const DEFAULTS = {
  namesrv: '', topic: '', group: 'node', mode: 'sync', tag: '', body: 'm', keys: 'yes', subscription: '*',
  model: 'clustering', listener: 'concurrent', instance: '', kind: 'pull', count: 1, threads: 1, first: 0,
  timeout: 60, linger: 2, 'fail-until': 0, size: 0, queue: -1, 'max-reconsume': -1,
};
const CHOICES = {
  mode: [ 'sync', 'async', 'oneway', 'batch' ], keys: [ 'yes', 'no' ], kind: [ 'lite', 'pull' ],
  model: [ 'clustering', 'broadcasting' ], listener: [ 'concurrent', 'orderly' ],
};

function parse([ verb, ...rest ]) {
  if (!VERBS[verb]) usage(`unknown verb "${verb || ''}"`);
  const options = {};
  for (const name of Object.keys(DEFAULTS)) options[name] = { type: 'string' };
  let values;
  try {
    values = parseArgs({ args: rest, options }).values;
  } catch (err) {
    usage(err.message);
  }
  const args = Object.assign({}, DEFAULTS, values);
  for (const [ name, value ] of Object.entries(DEFAULTS)) {
    if (typeof value === 'number') args[name] = Number(args[name]);
    if (Number.isNaN(args[name])) usage(`--${name} "${values[name]}" is not a number`);
    if (CHOICES[name] && !CHOICES[name].includes(args[name])) {
      usage(`--${name} "${args[name]}" is none of ${CHOICES[name].join(', ')}`);
    }
  }
  if (!args.namesrv || !args.topic) usage('--namesrv and --topic are required');
  return { verb, args };
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + '\n'); // Node writes to a pipe at once, also just before an exit.
}

function sleep(ms) {
  return ms > 0 ? new Promise(resolve => setTimeout(resolve, ms)) : undefined;
}

// The library's promises may stay open for ever when a server is not there.
async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([ promise, late ]);
  } finally {
    clearTimeout(timer);
  }
}

// A broker that has gone cannot be told goodbye; what was done before counts all the same.
async function close(client) {
  try {
    await within(CLOSE_TIMEOUT_MS, 'the close', client.close());
  } catch (err) {
    console.error('close:', err.message);
  }
}

async function startedProducer(args, more) {
  const producer = new Producer({
    httpclient, nameSrv: args.namesrv, producerGroup: args.group, sendMsgTimeout: 5000, ...more,
  });
  producer.on('error', err => console.error('producer:', err.message));
  await within(START_TIMEOUT_MS, 'the start', producer.ready());
  return producer;
}

// The lowest index not yet sent is shared by all loops of one run.
class Sending {
  constructor(args, producer) {
    this.args = args;
    this.producer = producer;
    this.next = args.first;
    this.deadline = Date.now() + args.timeout * 1000;
    this.sent = 0;
    this.firstError = null;
    this.pausedUntil = 0;
  }

  async loop() {
    while (this.next < this.args.first + this.args.count && Date.now() < this.deadline) {
      await this.one(this.next++);
      await sleep(this.pausedUntil - Date.now());
    }
  }

  async one(index) {
    try {
      this.acknowledge(index, await this.send(this.message(index)));
    } catch (err) {
      this.firstError = this.firstError || err;
      this.pausedUntil = Date.now() + FAILURE_PAUSE_MS;
    }
  }

  message(index) {
    const message = new Message(this.args.topic, this.args.tag, `${this.args.body}-${index}`);
    if (!this.args.tag) delete message.properties.TAGS; // It would be sent as a tag of no letters.
    if (this.args.keys === 'yes') message.keys = [ `k${index}` ];
    message.properties.index = String(index);
    message.properties.city = '北京';
    return message;
  }

  async send(message) {
    if (this.args.queue < 0) return await this.producer.send(message);
    const route = await this.producer.tryToFindTopicPublishInfo(message.topic);
    const queues = route.messageQueueList.slice().sort((a, b) =>
      (a.brokerName === b.brokerName ? a.queueId - b.queueId : a.brokerName < b.brokerName ? -1 : 1));
    if (!queues[this.args.queue]) throw new Error(`topic ${message.topic} has only ${queues.length} queues`);
    return await this.producer.sendKernelImpl(message, queues[this.args.queue]);
  }

  acknowledge(index, result) {
    if (result.sendStatus !== 'SEND_OK') throw new Error(`send status ${result.sendStatus}`);
    this.sent++;
    const { brokerName, queueId } = result.messageQueue;
    print({ index, id: result.msgId, broker: brokerName, queue: Number(queueId), offset: result.queueOffset });
  }

  // Says how many were sent, and why not all.
  finish(count) {
    print({ sent: this.sent, failed: count - this.sent });
    if (this.sent < count) {
      throw new Error(`${count - this.sent} of ${count} messages were not acknowledged within ` +
        `${this.args.timeout} s; the first error: ${this.firstError}`);
    }
  }
}

async function produce(args) {
  if (args.mode === 'oneway') throw new Unsupported('one-way send');
  if (args.mode === 'batch') throw new Unsupported('batch');
  const producer = await startedProducer(args);
  const sending = new Sending(args, producer);
  // A send is always a promise: "sync" awaits each one, "async" keeps many open.
  const loops = args.mode === 'async' ? ASYNC_IN_FLIGHT : args.threads;
  await Promise.all(Array.from({ length: loops }, () => sending.loop()));
  await close(producer);
  sending.finish(args.count);
}

function received(message, queue) {
  const { properties } = message;
  return {
    index: /^\d+$/.test(properties.index) ? Number(properties.index) : -1,
    id: message.msgId,
    // The library gives the queue with a message, but not with one that it tries again.
    broker: queue ? queue.brokerName : message.storeHost,
    queue: message.queueId,
    offset: message.queueOffset,
    tag: message.tags || '',
    body: (message.body || '').toString(),
    keys: message.keys || '',
    city: properties.city || '',
    reconsume: message.reconsumeTimes,
    topic: message.topic,
  };
}

async function consume(args) {
  if (args.listener === 'orderly') throw new Unsupported('orderly listener');
  const options = {
    httpclient, nameSrv: args.namesrv, consumerGroup: args.group, consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
    isBroadcast: args.model === 'broadcasting',
    instanceName: args.instance || `consume-${process.pid}`,
    persistent: args.instance !== '', // Where a broadcast consumer of that name stopped, in a file.
  };
  if (args['max-reconsume'] >= 0) options.maxReconsumeTimes = args['max-reconsume'];
  const consumer = new Consumer(options);
  const seen = new Set();
  let finish;
  const finished = new Promise(resolve => { finish = resolve; });
  consumer.on('error', err => console.error('consumer:', err.message));
  consumer.subscribe(args.topic, args.subscription, async (message, queue) => {
    const line = received(message, queue);
    line.ok = line.reconsume >= args['fail-until'];
    print(line);
    // An exception, because the answer ACTION_RETRY is lost on a message that is tried again.
    if (!line.ok) throw new Error(`asked to fail until reconsume times ${args['fail-until']}`);
    seen.add(line.index >= 0 ? line.index : line.id);
    if (seen.size >= args.count) finish();
  });
  await within(START_TIMEOUT_MS, 'the start', consumer.ready());
  print({ ready: true });
  process.stdin.on('end', finish).on('error', finish).resume();
  const timer = setTimeout(finish, args.timeout * 1000);
  await finished;
  clearTimeout(timer);
  await sleep(args.linger * 1000);
  await close(consumer);
  print({ handled: seen.size });
}

async function pull() {
  throw new Unsupported('pull consumer');
}

async function big(args) {
  // Compressed, a row of x would be small; the size must arrive as it is.
  const producer = await startedProducer(args, {
    maxMessageSize: args.size, compressMsgBodyOverHowmuch: args.size + 1, sendMsgTimeout: 15000,
  });
  const message = new Message(args.topic, '', 'x'.repeat(args.size));
  delete message.properties.TAGS;
  try {
    const result = await producer.send(message);
    if (result.sendStatus !== 'SEND_OK') throw new Error(`send status ${result.sendStatus}`);
    print({ status: 'ok', id: result.msgId });
  } catch (err) {
    if (typeof err.code !== 'number') throw err;
    print({ status: 'refused', code: err.code, message: err.message });
  }
  await close(producer);
}

async function chinese(args) {
  const producer = await startedProducer(args);
  const message = new Message(args.topic, '标签', '你好，世界');
  message.keys = [ '键' ];
  message.properties['名'] = '值';
  const sending = new Sending(args, producer);
  sending.acknowledge(0, await producer.send(message));
  await close(producer);
  sending.finish(1);
}

const VERBS = { produce, consume, pull, big, chinese };

async function main() {
  const { verb, args } = parse(process.argv.slice(2));
  let status = 0;
  try {
    await VERBS[verb](args);
  } catch (err) {
    console.error(`${verb}: ${err.message}`);
    status = err instanceof Unsupported ? EXIT_UNSUPPORTED : EXIT_FAILED;
  }
  process.exit(status); // The library keeps a hidden producer that nobody can close.
}

main();
