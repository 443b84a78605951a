// Streams an answer from a Conclave coordinator.
//
//	go run . -server 127.0.0.1:50051 -max-tokens 40 "Once upon a time"
//
// The stubs in conclavev1/ come from the published .proto files; README.md has the commands.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	conclavev1 "example.com/conclave-example/conclavev1"
)

func dial(server, ca string) (*grpc.ClientConn, error) {
	if ca == "" {
		return grpc.Dial(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	tls, err := credentials.NewClientTLSFromFile(ca, "")
	if err != nil {
		return nil, err
	}
	return grpc.Dial(server, grpc.WithTransportCredentials(tls))
}

// stream prints the answer as it comes and returns the number of tokens. Cancelling ctx frees what the request holds on the server.
func stream(ctx context.Context, client conclavev1.InferenceClient, request *conclavev1.GenerateRequest) (int, error) {
	answer, err := client.Generate(ctx, request)
	if err != nil {
		return 0, err
	}
	tokens := 0
	for {
		chunk, err := answer.Recv()
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		if err != nil {
			return tokens, err
		}
		fmt.Print(chunk.Text)
		tokens += len(chunk.TokenIds)
	}
}

func main() {
	server := flag.String("server", "127.0.0.1:50051", "HOST:PORT of the coordinator")
	maxTokens := flag.Uint("max-tokens", 64, "end the answer after this many tokens")
	ca := flag.String("tls-ca", "", "use TLS; file with certificates that may have signed the server's")
	token := flag.String("token", os.Getenv("CONCLAVE_TOKEN"), "bearer token")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: main [flags] PROMPT")
	}

	connection, err := dial(*server, *ca)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+*token)
	}

	limit := uint32(*maxTokens)
	request := &conclavev1.GenerateRequest{
		Input:    &conclavev1.GenerateRequest_Text{Text: flag.Arg(0)},
		Sampling: &conclavev1.Sampling{MaxTokens: &limit},
	}
	start := time.Now()
	tokens, err := stream(ctx, conclavev1.NewInferenceClient(connection), request)
	fmt.Println()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "%d tokens in %.2f s\n", tokens, time.Since(start).Seconds())
}
