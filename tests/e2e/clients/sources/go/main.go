package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

func handle(ctx context.Context, event interface{}) (interface{}, error) {
	found, _ := lambdacontext.FromContext(ctx)
	fmt.Println("asked for", event)
	switch event {
	case "fail":
		return nil, errors.New("no good")
	case "panic":
		panic("all is lost")
	case "exit":
		os.Exit(3)
	}
	return map[string]interface{}{"event": event, "id": found.AwsRequestID}, nil
}

func main() { lambda.Start(handle) }
