// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds what the demo shows; servers.go holds what it runs.

// Command demo shows redirects and failovers: a real Caddy with this plugin in front of a Consul and three Vault nodes,
// which are played inside this program, or real with -real.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	secretPath = "/v1/secret/data/demo"
	healthPath = "/vault-redirector-health"

	startTimeout    = 30 * time.Second // of Caddy, on a machine that is busy
	failoverTimeout = time.Minute
	answerTimeout   = 10 * time.Second // of a node that has just become active
	pollEvery       = 2 * time.Millisecond
)

// options are the command line.
type options struct {
	caddy  string
	listen string
	real   bool
	once   bool
}

// demo is one run.
type demo struct {
	options
	stdin  io.Reader
	out    io.Writer
	begin  time.Time
	base   string // http://host:port of Caddy
	dir    string // removed at the end
	vaults vaults
	caddy  *caddy
	client *http.Client // follows no redirect
}

func main() {
	// A reader that is gone (demo | head) is an error of that write, not the death of this program before it has cleaned up.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program; the end of ctx is a Ctrl-C. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &demo{stdin: stdin, out: endsWith{stdout, cancel}, begin: time.Now()}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&d.options.caddy, "caddy", "./caddy", "the Caddy to run, built from ./cmd/caddy")
	flags.StringVar(&d.listen, "listen", "127.0.0.1:8080", "where Caddy listens; port 0 is a free one")
	flags.BoolVar(&d.real, "real", false, "use a real Consul and real Vault nodes (Linux)")
	flags.BoolVar(&d.once, "once", false, "end after the first failover")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "demo: unexpected argument %q\n", flags.Arg(0))
		return 2
	}

	err := d.run(ctx)
	interrupted := ctx.Err() != nil
	err = errors.Join(err, d.close())
	switch {
	case interrupted && d.once:
		fmt.Fprintln(stderr, "demo: interrupted")
		return 1
	case interrupted:
		fmt.Fprintln(stdout) // after the terminal's ^C
	case err != nil:
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	fmt.Fprintln(stdout, "The end: all servers are stopped, all files removed.")
	return 0
}

// endsWith is a writer with which the program ends: nobody is reading any more.
type endsWith struct {
	io.Writer
	cancel context.CancelFunc
}

func (e endsWith) Write(b []byte) (int, error) {
	n, err := e.Writer.Write(b)
	if err != nil {
		e.cancel()
	}
	return n, err
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// run returns nil when the demo is over, or an error.
func (d *demo) run(ctx context.Context) error {
	if err := d.prepare(); err != nil {
		return err
	}
	d.introduce()
	if err := d.startVaults(ctx); err != nil {
		return err
	}
	if err := d.startCaddy(ctx); err != nil {
		return err
	}
	if err := d.writeSecret(ctx); err != nil {
		return err
	}
	active, err := d.vaults.active(ctx)
	if err != nil {
		return err
	}
	d.printf("\n1. %s is active. A client asks for a secret:\n\n", active)
	if err := d.showRedirect(ctx); err != nil {
		return err
	}
	d.printf("\n2. ")
	if err := d.failover(ctx, stepDown); err != nil || d.once {
		return err
	}
	d.suggest()
	return d.interact(ctx)
}

// prepare finds out what would be in the way, before anything is started or said.
func (d *demo) prepare() (err error) {
	program, err := exec.LookPath(d.options.caddy)
	if err != nil {
		return fmt.Errorf("no Caddy at %s: build it with `go build -o caddy ./cmd/caddy`, or name it with -caddy", d.options.caddy)
	}
	if d.options.caddy, err = filepath.Abs(program); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return fmt.Errorf("-listen: %q is not host:port, such as 127.0.0.1:8081", d.listen)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		again := "go run ./examples/demo -listen 127.0.0.1:"
		if d.real {
			again = "go run ./examples/demo -real -listen 127.0.0.1:"
		}
		other := "0"
		if n, err := strconv.Atoi(port); err == nil && n < 65535 {
			other = strconv.Itoa(n + 1)
		}
		return fmt.Errorf("%s is taken by another program; choose another port: %s%s", d.listen, again, other)
	} else if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	if err := listener.Close(); err != nil {
		return err
	}
	d.listen = net.JoinHostPort(host, port)
	d.base = "http://" + d.listen
	d.client = &http.Client{
		Transport:     &http.Transport{}, // no proxy
		Timeout:       answerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	d.dir, err = os.MkdirTemp("", "vault-demo-")
	return err
}

// introduce says what is real and what is not.
func (d *demo) introduce() {
	d.printf("vault_redirect sends the clients of HashiCorp Vault to the active node. In this demo\n")
	if d.real {
		d.printf("  real:      Caddy with this plugin, Consul, three Vault nodes, everything on the network\n" +
			"  stand-in:  nothing\n\n")
		return
	}
	d.printf("  real:      Caddy with this plugin, and all requests and answers\n" +
		"  stand-in:  Consul and the three Vault nodes, played by this program; they elect in no time\n" +
		"             (make demo-real takes real ones)\n\n")
}

// showRedirect shows one request as curl would, and who answers if it is followed.
func (d *demo) showRedirect(ctx context.Context) error {
	answer, err := d.raw(ctx, secretPath)
	if err != nil {
		return err
	}
	answer = strings.TrimSpace(strings.ReplaceAll(answer, "\r\n", "\n"))
	d.printf("$ curl -i %s%s\n%s\n\n", d.base, secretPath, answer)
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errors.New("no node gives the secret"))
	defer cancel()
	var res *http.Response
	var body []byte
	// A real node that has just become active needs a moment.
	err = d.poll(ctx, 50*time.Millisecond, func() (ok bool) {
		res, body, err = d.follow(ctx, http.MethodGet, secretPath, nil)
		return err == nil && res.StatusCode == http.StatusOK
	})
	if err != nil {
		return err
	}
	var secret struct {
		Data struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal(body, &secret); err != nil {
		return fmt.Errorf("the answer of %s: %w", res.Request.URL.Host, err)
	}
	d.printf("Followed (curl -L), %s at %s answers %s: %s\n", d.vaults.name(res.Request.URL.Host), res.Request.URL.Host,
		res.Status, secret.Data.Data)
	return nil
}

// failover takes the active node away and shows where the redirects lead then.
func (d *demo) failover(ctx context.Context, how way) error {
	old, err := d.vaults.active(ctx)
	if err != nil {
		return err
	}
	before, err := d.target(ctx)
	if err != nil {
		return err
	}
	d.printf("%s %s.", old, how)
	ctx, cancel := context.WithTimeoutCause(ctx, failoverTimeout, fmt.Errorf("no other node after %s", failoverTimeout))
	defer cancel()
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- d.vaults.takeAway(ctx, how) }()
	var after string
	var unavailable, available time.Time // the time without any active node
	err = d.poll(ctx, pollEvery, func() bool {
		after, err = d.target(ctx)
		if err != nil {
			return false
		}
		if after == "" && unavailable.IsZero() {
			unavailable = time.Now()
		}
		if after == "" || after == before {
			return false
		}
		available = time.Now()
		return true
	})
	if err != nil {
		cancel() // ends the taking away as well
		return errors.Join(err, <-done)
	}
	if err := <-done; err != nil {
		return err
	}
	d.printf(" %s later the redirects lead to %s", round(available.Sub(begin)), d.vaults.name(after))
	if !unavailable.IsZero() {
		d.printf(" (503 for %s, while no node was active)", round(available.Sub(unavailable)))
	}
	d.printf(":\n\n")
	return d.showRedirect(ctx)
}

// suggest says what to try in another terminal.
func (d *demo) suggest() {
	d.printf("\nTry it yourself, in another terminal:\n")
	if token := d.vaults.token(); token != "" {
		d.printf("  export VAULT_ADDR=%s VAULT_TOKEN=%s\n", d.base, token)
		for _, command := range []string{"kv put secret/demo greeting=hi", "kv get secret/demo", "operator step-down"} {
			d.printf("  %s %s\n", d.vaults.program(), command)
		}
		d.printf("  curl -i $VAULT_ADDR%s\n", secretPath)
		d.printf("  curl -L -H \"X-Vault-Token: $VAULT_TOKEN\" $VAULT_ADDR%s\n", secretPath)
		d.printf("  curl $VAULT_ADDR%s\n", healthPath)
		return
	}
	for _, line := range [][2]string{
		{"curl -i " + d.base + secretPath, "the redirect"},
		{"curl -L " + d.base + secretPath, "the secret"},
		{"curl -L -X PUT " + d.base + "/v1/sys/step-down", "a failover"},
		{"curl " + d.base + healthPath, "what the plugin knows"},
	} {
		d.printf("  %-58s # %s\n", line[0], line[1])
	}
}

// interact causes a failover for each line that is read, until there is no more, or Ctrl-C.
func (d *demo) interact(ctx context.Context) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(d.stdin); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for how := kill; ; how = how.other() {
		d.vaults.settle(ctx)
		d.printf("\nEnter: another failover (%s).  q or Ctrl-C: the end.\n", how.title())
		select {
		case line, ok := <-lines:
			if !ok || strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "q") {
				return nil
			}
		case <-d.caddy.done:
			return d.caddy.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
		if name := d.vaults.dead(); name != "" {
			d.printf("%s is started again", name)
			if err := d.vaults.revive(ctx); err != nil {
				return err
			}
			d.printf(" and is a standby now.\n")
		}
		if err := d.failover(ctx, how); err != nil {
			return err
		}
	}
}

// raw asks Caddy and returns the whole answer as it came: net/http loses the order of the headers.
func (d *demo) raw(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.listen)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := req.Write(conn); err != nil {
		return "", err
	}
	var text bytes.Buffer
	res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &text)), req)
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", req.URL, err)
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return text.String(), err
}

// target returns the host:port that Caddy redirects to now, "" if to none.
func (d *demo) target(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+secretPath, nil)
	if err != nil {
		return "", err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return "", err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusTemporaryRedirect {
		return "", nil
	}
	location, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	return location.Host, nil
}

// follow asks Caddy and follows its redirect, as Vault's own client does.
func (d *demo) follow(ctx context.Context, method, path string, body []byte) (*http.Response, []byte, error) {
	client := *d.client
	client.CheckRedirect = nil
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if token := d.vaults.token(); token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, text, err
}

// writeSecret writes what the demo reads, by way of the redirect.
func (d *demo) writeSecret(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errors.New("the secret cannot be written"))
	defer cancel()
	return d.poll(ctx, 50*time.Millisecond, func() bool {
		res, _, err := d.follow(ctx, http.MethodPut, secretPath, []byte(`{"data":{"greeting":"hello"}}`))
		return err == nil && res.StatusCode < 300
	})
}

// poll asks again and again until ok; Caddy's end and that of ctx are errors.
func (d *demo) poll(ctx context.Context, every time.Duration, ok func() bool) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-d.caddy.done:
			return d.caddy.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}

// round makes a duration readable.
func round(t time.Duration) time.Duration {
	if t < time.Second {
		return t.Round(time.Millisecond)
	}
	return t.Round(100 * time.Millisecond)
}
