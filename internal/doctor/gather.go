package doctor

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sessfs/backend"
	"sessfs/config"
)

// Options say what is looked at.
type Options struct {
	Config     *config.Config
	ConfigFile string          // "": none, the defaults
	Mountpoint string          // as in /proc/mounts; "": the configuration's
	Root       string          // below which the files of PHP, Apache and the system are; default "/"
	Backend    backend.Options // of the cache servers
	Version    string          // of this program
	HostID     string
	// Daemon asks the daemon of the mount; it must end with ctx.
	Daemon func(ctx context.Context) Daemon
}

// daemonTimeout is how long the daemon may take to answer, beyond what its servers may take.
const daemonTimeout = 5 * time.Second

// Gather looks at everything, at the same time what may take long. It returns when all have answered or their time is over.
func Gather(ctx context.Context, o Options) *Facts {
	f := &Facts{Config: o.Config, ConfigFile: o.ConfigFile, Mountpoint: cmp.Or(o.Mountpoint, o.Config.Mountpoint), Now: time.Now(), Version: o.Version, HostID: o.HostID}
	if o.ConfigFile != "" {
		data, _ := os.ReadFile(o.ConfigFile)
		f.Lines = findLines(data)
	}
	t := tree{root: filepath.Clean(cmp.Or(o.Root, "/"))}
	var wg sync.WaitGroup
	wg.Go(func() { f.PHP = gatherPHP(ctx, t) })
	wg.Go(func() { f.Mount = gatherMount(ctx, f.Mountpoint) })
	wg.Go(func() { f.System = gatherSystem(t, f.Mountpoint) })
	if len(o.Backend.Servers) > 0 {
		wg.Go(func() { f.Servers = backend.Examine(ctx, o.Backend) })
	}
	if o.Daemon != nil {
		wg.Go(func() {
			ctx, end := context.WithTimeout(ctx, daemonTimeout+2*o.Config.Cache.Timeout)
			defer end()
			f.Daemon = o.Daemon(ctx)
		})
	}
	wg.Wait()
	return f
}
