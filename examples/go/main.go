// Streams an answer from a Conclave coordinator.
//
//	examples/go/build.sh && build/go/stream -server 127.0.0.1:50051 -max-tokens 40 "Once upon a time"
//
// build.sh makes the stubs, package conclave/v1, from the published .proto files.
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
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	conclavev1 "conclave/v1"
)

// codec packs messages with the protobuf that the stubs are made for; Debian 12's grpc would take an older one.
type codec struct{}

func (codec) Marshal(v interface{}) ([]byte, error)      { return proto.Marshal(v.(proto.Message)) }
func (codec) Unmarshal(data []byte, v interface{}) error { return proto.Unmarshal(data, v.(proto.Message)) }
func (codec) Name() string                               { return "proto" }

func dial(server, ca string) (*grpc.ClientConn, error) {
	options := grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}))
	if ca == "" {
		return grpc.Dial(server, options, grpc.WithInsecure()) // Debian 12 has no credentials/insecure yet
	}
	tls, err := credentials.NewClientTLSFromFile(ca, "")
	if err != nil {
		return nil, err
	}
	return grpc.Dial(server, options, grpc.WithTransportCredentials(tls))
}

// readToken returns the first line that is neither empty nor a comment.
func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line, nil
		}
	}
	return "", fmt.Errorf("%s: no token in it", path)
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
	tokenFile := flag.String("token-file", "", "file with the bearer token; lines that begin with # are comments")
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
	if *tokenFile != "" {
		token, err := readToken(*tokenFile)
		if err != nil {
			log.Fatal(err)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
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
