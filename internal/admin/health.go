package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Health tells how the daemon does. A nil error is good; the error's text is the answer's.
type Health struct {
	Alive func(context.Context) error // the process works: if not, only a restart helps
	Ready func(context.Context) error // sessions can be served
}

// healthTime is the longest time that a look may take.
const healthTime = 3 * time.Second

// routes adds /healthz and /readyz.
func (h Health) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", probe(h.Alive))
	mux.HandleFunc("GET /readyz", probe(h.Ready))
}

func probe(look func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, end := context.WithTimeout(r.Context(), healthTime)
		defer end()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if err := look(ctx); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}
