// The client program on github.com/apache/rocketmq-client-go/v2: the verbs and lines of tests/clients/README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnsupported = 3

	batchCount       = 10
	asyncInFlightMax = 64
	pullCount        = 32
	// The library waits 3 s for an answer; a callback later than this never comes.
	callbackWait = 10 * time.Second
	// After a failure, so that a broker that restarts does not cost all the messages that are left.
	failurePause = 100 * time.Millisecond
)

type flags struct {
	namesrv, topic, group, mode, tag, body, keys  string
	subscription, model, listener, instance, kind string
	count, threads, first, queue                  int
	timeout, linger, failUntil, maxReconsume      int
	size                                          int
}

func main() {
	rlog.SetLogLevel("warn") // The library logs to stderr.
	verb, f := parse(os.Args[1:])
	verbs := map[string]func(flags) error{
		"produce": produce, "consume": consume, "pull": pull, "big": big, "chinese": chinese,
	}
	run, known := verbs[verb]
	if !known {
		usage("unknown verb %q", verb)
	}
	if err := run(f); err != nil {
		var missing unsupported
		fmt.Fprintln(os.Stderr, verb+":", err)
		if errors.As(err, &missing) {
			os.Exit(exitUnsupported)
		}
		os.Exit(exitFailed)
	}
}

func parse(args []string) (string, flags) {
	if len(args) == 0 {
		usage("no verb given")
	}
	var f flags
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.StringVar(&f.namesrv, "namesrv", "", "HOST:PORT")
	set.StringVar(&f.topic, "topic", "", "NAME")
	set.StringVar(&f.group, "group", "go", "")
	set.StringVar(&f.mode, "mode", "sync", "sync|async|oneway|batch")
	set.StringVar(&f.tag, "tag", "", "")
	set.StringVar(&f.body, "body", "m", "")
	set.StringVar(&f.keys, "keys", "yes", "yes|no")
	set.StringVar(&f.subscription, "subscription", "*", "")
	set.StringVar(&f.model, "model", "clustering", "clustering|broadcasting")
	set.StringVar(&f.listener, "listener", "concurrent", "concurrent|orderly")
	set.StringVar(&f.instance, "instance", "", "")
	set.StringVar(&f.kind, "kind", "pull", "lite|pull")
	set.IntVar(&f.count, "count", 1, "")
	set.IntVar(&f.threads, "threads", 1, "")
	set.IntVar(&f.first, "first", 0, "")
	set.IntVar(&f.queue, "queue", -1, "")
	set.IntVar(&f.timeout, "timeout", 60, "")
	set.IntVar(&f.linger, "linger", 2, "")
	set.IntVar(&f.failUntil, "fail-until", 0, "")
	set.IntVar(&f.maxReconsume, "max-reconsume", -1, "")
	set.IntVar(&f.size, "size", 0, "")
	if err := set.Parse(args[1:]); err != nil {
		os.Exit(exitUsage)
	}
	if f.namesrv == "" || f.topic == "" || set.NArg() > 0 {
		usage("--namesrv and --topic are required, and every flag starts with --")
	}
	return args[0], f
}

func usage(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\nuse: run produce|consume|pull|big|chinese --namesrv HOST:PORT --topic NAME [flags]\n", args...)
	os.Exit(exitUsage)
}

// unsupported is what the library cannot do.
type unsupported string

func (u unsupported) Error() string { return "rocketmq-client-go 2.1.2 has no " + string(u) }

var printLock sync.Mutex

func printLine(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	printLock.Lock()
	defer printLock.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

type sentLine struct {
	Index  int     `json:"index"`
	ID     string  `json:"id"`
	Broker *string `json:"broker,omitempty"`
	Queue  *int    `json:"queue,omitempty"`
	Offset *int64  `json:"offset,omitempty"`
}

type receivedLine struct {
	Index     int    `json:"index"`
	ID        string `json:"id"`
	Broker    string `json:"broker"`
	Queue     int    `json:"queue"`
	Offset    int64  `json:"offset"`
	Tag       string `json:"tag"`
	Body      string `json:"body"`
	Keys      string `json:"keys"`
	City      string `json:"city"`
	Reconsume int32  `json:"reconsume"`
	Topic     string `json:"topic"`
	OK        *bool  `json:"ok,omitempty"`
}

func received(m *primitive.MessageExt, queue primitive.MessageQueue, ok *bool) receivedLine {
	index, err := strconv.Atoi(m.GetProperty("index"))
	if err != nil {
		index = -1 // A message of another making.
	}
	return receivedLine{
		Index: index, ID: m.MsgId, Broker: queue.BrokerName, Queue: m.Queue.QueueId, Offset: m.QueueOffset,
		Tag: m.GetTags(), Body: string(m.Body), Keys: m.GetKeys(), City: m.GetProperty("city"),
		Reconsume: m.ReconsumeTimes, Topic: m.Topic, OK: ok,
	}
}

// progress counts distinct messages and says when there are enough.
type progress struct {
	lock    sync.Mutex
	seen    map[string]bool
	enough  int
	reached chan struct{}
}

func newProgress(enough int) *progress {
	return &progress{seen: map[string]bool{}, enough: enough, reached: make(chan struct{})}
}

func (p *progress) add(line receivedLine) {
	name := strconv.Itoa(line.Index)
	if line.Index < 0 {
		name = line.ID
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.seen[name] {
		return
	}
	p.seen[name] = true
	if len(p.seen) == p.enough {
		close(p.reached)
	}
}

func (p *progress) count() int {
	p.lock.Lock()
	defer p.lock.Unlock()
	return len(p.seen)
}

// sortedQueue sends everything to one queue, counted in the order of broker name and queue id.
type sortedQueue int

func (q sortedQueue) Select(_ *primitive.Message, queues []*primitive.MessageQueue, _ string) *primitive.MessageQueue {
	sorted := append([]*primitive.MessageQueue(nil), queues...)
	sort.Slice(sorted, func(i, j int) bool {
		if sorted[i].BrokerName != sorted[j].BrokerName {
			return sorted[i].BrokerName < sorted[j].BrokerName
		}
		return sorted[i].QueueId < sorted[j].QueueId
	})
	if int(q) >= len(sorted) {
		return nil
	}
	return sorted[q]
}

func startProducer(f flags, more ...producer.Option) (rocketmq.Producer, error) {
	options := []producer.Option{
		producer.WithNameServer(primitive.NamesrvAddr{f.namesrv}),
		producer.WithGroupName(f.group),
		producer.WithInstanceName(fmt.Sprintf("produce-%d", os.Getpid())),
	}
	if f.queue >= 0 {
		options = append(options, producer.WithQueueSelector(sortedQueue(f.queue)))
	}
	p, err := rocketmq.NewProducer(append(options, more...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

// sending is one run of produce: which messages are sent, and what became of them.
type sending struct {
	flags
	producer     rocketmq.Producer
	next         atomic.Int64
	sent, failed atomic.Int64
	firstError   atomic.Value
	pausedUntil  atomic.Int64 // Nanoseconds since 1970.
	deadline     time.Time
	callbacks    sync.WaitGroup
	inFlight     chan struct{}
}

func produce(f flags) error {
	p, err := startProducer(f)
	if err != nil {
		return err
	}
	s := &sending{flags: f, producer: p, inFlight: make(chan struct{}, asyncInFlightMax)}
	s.deadline = time.Now().Add(time.Duration(f.timeout) * time.Second)
	step := 1
	var send func([]int)
	switch f.mode {
	case "sync":
		send = s.sync
	case "async":
		send = s.async
	case "oneway":
		send = s.oneway
	case "batch":
		send, step = s.sync, batchCount
	default:
		usage("--mode %q is none of sync, async, oneway, batch", f.mode)
	}
	// The library publishes a topic's queues before its brokers' addresses: a second thread in between is told "route
	// info not found" (v2.1.2, internal/route.go). So the first send has been made when the threads begin.
	if indexes := s.take(step); len(indexes) > 0 {
		send(indexes)
	}
	var threads sync.WaitGroup
	for i := 0; i < f.threads; i++ {
		threads.Add(1)
		go func() {
			defer threads.Done()
			for {
				indexes := s.take(step)
				if len(indexes) == 0 {
					return
				}
				send(indexes)
			}
		}()
	}
	threads.Wait()
	s.waitForCallbacks()
	if f.mode == "oneway" {
		time.Sleep(time.Second) // Nobody answers: what the socket still holds must leave before it closes.
	}
	err = p.Shutdown()
	sent := s.sent.Load()
	failed := int64(f.count) - sent // Neither refused nor begun before the deadline: not sent either.
	printLine(map[string]int64{"sent": sent, "failed": failed})
	if failed > 0 {
		return fmt.Errorf("%d of %d messages were not acknowledged within %d s; the first error: %v",
			failed, f.count, f.timeout, s.firstError.Load())
	}
	return err
}

// take gives the next indexes to send; none when all are taken or time is up.
func (s *sending) take(step int) []int {
	time.Sleep(time.Until(time.Unix(0, s.pausedUntil.Load())))
	if time.Now().After(s.deadline) {
		return nil
	}
	from := s.next.Add(int64(step)) - int64(step)
	var indexes []int
	for i := from; i < from+int64(step) && i < int64(s.count); i++ {
		indexes = append(indexes, s.first+int(i))
	}
	return indexes
}

func (s *sending) message(index int) *primitive.Message {
	m := primitive.NewMessage(s.topic, fmt.Appendf(nil, "%s-%d", s.body, index))
	m.WithTag(s.tag)
	if s.keys == "yes" {
		m.WithKeys([]string{fmt.Sprintf("k%d", index)})
	}
	m.WithProperty("index", strconv.Itoa(index))
	m.WithProperty("city", "北京")
	return m
}

func (s *sending) acknowledge(indexes []int, result *primitive.SendResult, err error) {
	if err == nil && result.Status != primitive.SendOK {
		err = fmt.Errorf("send status %d", result.Status)
	}
	if err != nil {
		s.failed.Add(int64(len(indexes)))
		s.firstError.CompareAndSwap(nil, err.Error())
		s.pausedUntil.Store(time.Now().Add(failurePause).UnixNano())
		return
	}
	ids := strings.Split(result.MsgID, ",")
	if result.MsgID == "" {
		ids = strings.Split(result.OffsetMsgID, ",") // The library gives the messages of a batch no id of its own.
	}
	for i, index := range indexes {
		line := sentLine{Index: index, Broker: &result.MessageQueue.BrokerName, Queue: &result.MessageQueue.QueueId}
		if i < len(ids) {
			line.ID = ids[i]
		}
		offset := result.QueueOffset + int64(i) // A batch is answered with its first offset.
		line.Offset = &offset
		printLine(line)
		s.sent.Add(1)
	}
}

func (s *sending) sync(indexes []int) {
	var messages []*primitive.Message
	for _, index := range indexes {
		messages = append(messages, s.message(index))
	}
	result, err := s.producer.SendSync(context.Background(), messages...)
	s.acknowledge(indexes, result, err)
}

func (s *sending) async(indexes []int) {
	s.inFlight <- struct{}{}
	s.callbacks.Add(1)
	var once sync.Once // After a lost connection the library calls twice.
	done := func(_ context.Context, result *primitive.SendResult, err error) {
		once.Do(func() {
			s.acknowledge(indexes, result, err)
			<-s.inFlight
			s.callbacks.Done()
		})
	}
	if err := s.producer.SendAsync(context.Background(), done, s.message(indexes[0])); err != nil {
		done(nil, nil, err)
	}
}

func (s *sending) oneway(indexes []int) {
	m := s.message(indexes[0])
	if err := s.producer.SendOneWay(context.Background(), m); err != nil {
		s.acknowledge(indexes, nil, err)
		return
	}
	printLine(sentLine{Index: indexes[0], ID: m.GetProperty(primitive.PropertyUniqueClientMessageIdKeyIndex)})
	s.sent.Add(1)
}

func (s *sending) waitForCallbacks() {
	all := make(chan struct{})
	go func() { s.callbacks.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(callbackWait):
	}
}

func selector(expression string) consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.TAG, Expression: expression}
}

func consumerOptions(f flags) []consumer.Option {
	options := []consumer.Option{
		consumer.WithNameServer(primitive.NamesrvAddr{f.namesrv}),
		consumer.WithGroupName(f.group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}
	if f.instance != "" {
		options = append(options, consumer.WithInstance(f.instance))
	}
	return options
}

func consume(f flags) error {
	options := consumerOptions(f)
	if f.maxReconsume >= 0 {
		options = append(options, consumer.WithMaxReconsumeTimes(int32(f.maxReconsume)))
	}
	switch f.model {
	case "clustering":
		options = append(options, consumer.WithConsumerModel(consumer.Clustering))
	case "broadcasting":
		options = append(options, consumer.WithConsumerModel(consumer.BroadCasting))
	default:
		usage("--model %q is neither clustering nor broadcasting", f.model)
	}
	later := consumer.ConsumeRetryLater
	switch f.listener {
	case "concurrent":
	case "orderly":
		later = consumer.SuspendCurrentQueueAMoment
		options = append(options, consumer.WithConsumerOrder(true))
	default:
		usage("--listener %q is neither concurrent nor orderly", f.listener)
	}
	c, err := rocketmq.NewPushConsumer(options...)
	if err != nil {
		return err
	}
	progress := newProgress(f.count)
	listen := func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages { // The library hands out one at a time unless told otherwise.
			ok := m.ReconsumeTimes >= int32(f.failUntil)
			line := received(m, queueOf(ctx), &ok)
			printLine(line)
			if !ok {
				return later, nil
			}
			progress.add(line)
		}
		return consumer.ConsumeSuccess, nil
	}
	if err := c.Subscribe(f.topic, selector(f.subscription), listen); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	printLine(map[string]bool{"ready": true})
	select {
	case <-progress.reached:
	case <-stdinClosed():
	case <-time.After(time.Duration(f.timeout) * time.Second):
	}
	time.Sleep(time.Duration(f.linger) * time.Second)
	if err := c.Shutdown(); err != nil {
		return err
	}
	printLine(map[string]int{"handled": progress.count()})
	return nil
}

func queueOf(ctx context.Context) primitive.MessageQueue {
	if concurrent, ok := primitive.GetConcurrentlyCtx(ctx); ok {
		return concurrent.MQ
	}
	if orderly, ok := primitive.GetOrderlyCtx(ctx); ok {
		return orderly.MQ
	}
	return primitive.MessageQueue{}
}

func stdinClosed() <-chan struct{} {
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	return closed
}

func pull(f flags) error {
	if f.kind == "lite" {
		return unsupported("lite pull consumer")
	}
	if f.kind != "pull" {
		usage("--kind %q is neither lite nor pull", f.kind)
	}
	queues, err := queuesOf(f)
	if err != nil {
		return err
	}
	c, err := rocketmq.NewPullConsumer(consumerOptions(f)...)
	if err != nil {
		return err
	}
	if err := c.Subscribe(f.topic, selector(f.subscription)); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	printLine(map[string]bool{"ready": true})
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(f.timeout)*time.Second)
	defer cancel()
	progress := newProgress(f.count)
	var nexts sync.Map
	for _, queue := range queues {
		go pullQueue(ctx, c, queue, progress, &nexts)
	}
	select {
	case <-progress.reached:
	case <-ctx.Done():
	}
	cancel()
	// Offsets are stored only for queues that the library's rebalance, begun at the start, has given to this
	// consumer, and forgotten for all others. Nothing tells when it has come to an end.
	for round := 0; round < 8; round++ {
		time.Sleep(500 * time.Millisecond)
		nexts.Range(func(queue, next any) bool {
			err = c.UpdateOffset(queue.(*primitive.MessageQueue), next.(int64))
			return err == nil
		})
		if err != nil {
			return err
		}
		if err := c.PersistOffset(context.Background(), f.topic); err != nil {
			return err
		}
	}
	err = c.Shutdown()
	printLine(map[string]int{"handled": progress.count()})
	return err
}

func queuesOf(f flags) ([]*primitive.MessageQueue, error) {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{f.namesrv})))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.FetchPublishMessageQueues(context.Background(), f.topic)
}

// pullQueue reads one queue from its beginning. A pull at the end of a queue waits in the broker for
// longer than the caller may want, so each queue has its own goroutine and nobody waits for them.
func pullQueue(ctx context.Context, c rocketmq.PullConsumer, queue *primitive.MessageQueue, progress *progress, nexts *sync.Map) {
	offset := int64(0)
	for ctx.Err() == nil {
		result, err := c.PullFrom(ctx, queue, offset, pullCount)
		if err != nil {
			fmt.Fprintf(os.Stderr, "pull of %v at %d: %v\n", queue, offset, err)
			time.Sleep(200 * time.Millisecond)
			continue
		}
		if ctx.Err() != nil {
			return // Whoever counts has finished.
		}
		if result.Status == primitive.PullFound {
			for _, m := range result.GetMessageExts() {
				line := received(m, *queue, nil)
				printLine(line)
				progress.add(line)
			}
		}
		offset = result.NextBeginOffset
		nexts.Store(queue, offset)
		if err := c.UpdateOffset(queue, offset); err != nil {
			fmt.Fprintf(os.Stderr, "offset %d of %v not kept: %v\n", offset, queue, err)
		}
	}
}

var codeInText = regexp.MustCompile(`(?s)CODE: (\d+),? +DESC: (.*)`)

func big(f flags) error {
	// Compressed, a row of x would be small; the size must arrive as it is.
	p, err := startProducer(f, producer.WithCompressMsgBodyOverHowmuch(f.size+1))
	if err != nil {
		return err
	}
	defer p.Shutdown()
	m := primitive.NewMessage(f.topic, []byte(strings.Repeat("x", f.size)))
	result, err := p.SendSync(context.Background(), m)
	if err == nil && result.Status == primitive.SendOK {
		printLine(map[string]string{"status": "ok", "id": result.MsgID})
		return nil
	}
	if err == nil {
		return fmt.Errorf("send status %d", result.Status)
	}
	match := codeInText.FindStringSubmatch(err.Error())
	if match == nil {
		return err
	}
	code, _ := strconv.Atoi(match[1])
	printLine(map[string]any{"status": "refused", "code": code, "message": match[2]})
	return nil
}

func chinese(f flags) error {
	p, err := startProducer(f)
	if err != nil {
		return err
	}
	defer p.Shutdown()
	m := primitive.NewMessage(f.topic, []byte("你好，世界"))
	m.WithTag("标签").WithKeys([]string{"键"}).WithProperty("名", "值")
	s := &sending{flags: f, producer: p}
	result, err := p.SendSync(context.Background(), m)
	s.acknowledge([]int{0}, result, err)
	printLine(map[string]int64{"sent": s.sent.Load(), "failed": s.failed.Load()})
	if s.failed.Load() > 0 {
		return fmt.Errorf("not acknowledged: %v", s.firstError.Load())
	}
	return nil
}
