package web

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"net/http"
	"time"

	"sessfs/internal/metrics"
	"sessfs/locking"
)

//go:embed assets
var assets embed.FS

var pageTemplate = template.Must(template.ParseFS(assets, "assets/page.html"))

// Source is where the page's figures come from.
type Source struct {
	Host     string
	Snapshot func(context.Context) *metrics.Snapshot
	Locks    func(max int) []locking.Lock
	History  *History
}

// renderTime is the longest time that a snapshot may take.
const renderTime = 8 * time.Second

// Page answers GET of the page and of what belongs to it.
func Page(s Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serve)
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		content, err := assets.ReadFile("assets/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-cache")
			w.Write(content)
		})
	}
	return mux
}

func (s Source) serve(w http.ResponseWriter, r *http.Request) {
	ctx, end := context.WithTimeout(r.Context(), renderTime)
	defer end()
	snapshot := s.Snapshot(ctx)
	now := time.Now()
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, s.data(totals{now, snapshot})); err != nil {
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b.Bytes())
}
