// Sends a message and receives it. Needs github.com/apache/rocketmq-client-go/v2 v2.1.2.
package main

import (
	"context"
	"fmt"
	"log"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

func main() {
	namesrv := primitive.NamesrvAddr{"127.0.0.1:9876"}

	p, err := rocketmq.NewProducer(producer.WithNameServer(namesrv), producer.WithGroupName("hello-go-producer"))
	check(err)
	check(p.Start())
	result, err := p.SendSync(context.Background(), primitive.NewMessage("hello-go", []byte("Hello from Go")))
	check(err)
	fmt.Println(result)

	c, err := rocketmq.NewPushConsumer(consumer.WithNameServer(namesrv), consumer.WithGroupName("hello-go-consumer"),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	check(err)
	received := make(chan string)
	check(c.Subscribe("hello-go", consumer.MessageSelector{},
		func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, message := range messages {
				received <- string(message.Body)
			}
			return consumer.ConsumeSuccess, nil
		}))
	check(c.Start())
	fmt.Println(<-received)
	check(c.Shutdown())
	check(p.Shutdown())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
