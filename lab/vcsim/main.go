// A vCenter or an ESXi host in memory, for tests of the VMware drivers: govmomi's simulator, with faults on demand.
//
//	vcsim [-esx] [-l 127.0.0.1:0] [-clusters 1] [-hosts 2] [-vms 0] [-ds 2]
//	    prints "READY ADDRESS"; user and password: user, pass; ends when its standard input does
//
//	POST /_ctl?fault=TaskInProgress&method=PowerOnVM_Task[&as=task][&times=1]    the next calls fail, or the tasks do
//	POST /_ctl?status=503                                                       the next request gets that answer
//	POST /_ctl?delay=PowerOnVM_Task&ms=1500                                     each such call takes that longer
//	POST /_ctl?sessions=drop                                                    all sessions are gone
//	GET  /_ctl?calls                                                            how often each method was called
package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"sync"
	"syscall"

	_ "github.com/vmware/govmomi/pbm/simulator"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// planned is a fault that the next calls of a method meet.
type planned struct {
	fault  types.BaseMethodFault
	inTask bool
	times  int
}

var (
	lock   sync.Mutex
	faults = map[string]*planned{}
	calls  = map[string]int{}
)

// failing stands in for the object of a call, so that its task begins and fails.
type failing struct {
	self  types.ManagedObjectReference
	fault types.BaseMethodFault
}

func (f *failing) Reference() types.ManagedObjectReference { return f.self }

func (f *failing) task(ctx *simulator.Context, name string) types.ManagedObjectReference {
	ctx.Session.Registry.Remove(ctx, f.self)
	run := func(*simulator.Task) (types.AnyType, types.BaseMethodFault) { return nil, f.fault }
	return simulator.CreateTask(f, name, run).Run(ctx)
}

func (f *failing) PowerOnVMTask(ctx *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: f.task(ctx, "powerOn")}}
}

func (f *failing) PowerOffVMTask(ctx *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: f.task(ctx, "powerOff")}}
}

func (f *failing) CreateVMTask(ctx *simulator.Context, _ *types.CreateVM_Task) soap.HasFault {
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: f.task(ctx, "createVm")}}
}

func (f *failing) ReconfigVMTask(ctx *simulator.Context, _ *types.ReconfigVM_Task) soap.HasFault {
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: f.task(ctx, "reconfigVm")}}
}

func (f *failing) RelocateVMTask(ctx *simulator.Context, _ *types.RelocateVM_Task) soap.HasFault {
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: f.task(ctx, "relocateVm")}}
}

func (f *failing) CopyVirtualDiskTask(ctx *simulator.Context, _ *types.CopyVirtualDisk_Task) soap.HasFault {
	return &methods.CopyVirtualDisk_TaskBody{Res: &types.CopyVirtualDisk_TaskResponse{Returnval: f.task(ctx, "copyDisk")}}
}

// screen stands in for a VM that is asked for a ticket: govmomi's simulator has none. Nobody listens where this leads.
type screen struct{ self types.ManagedObjectReference }

func (s *screen) Reference() types.ManagedObjectReference { return s.self }

func (s *screen) AcquireTicket(ctx *simulator.Context, req *types.AcquireTicket) soap.HasFault {
	ctx.Session.Registry.Remove(ctx, s.self)
	secret := make([]byte, 8)
	_, _ = rand.Read(secret)
	ticket := types.VirtualMachineTicket{
		Ticket: hex.EncodeToString(secret), CfgFile: req.TicketType, Host: "esxi.invalid", Port: 443,
		SslThumbprint: "00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13",
	}
	return &methods.AcquireTicketBody{Res: &types.AcquireTicketResponse{Returnval: ticket}}
}

func meet(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	lock.Lock()
	defer lock.Unlock()
	calls[method.Name]++
	plan := faults[method.Name]
	if plan == nil || plan.times <= 0 {
		if method.Name == "AcquireTicket" {
			ctx.Session.Registry.Put(&screen{method.This})
		}
		return nil, nil
	}
	plan.times--
	fill(reflect.ValueOf(plan.fault).Elem(), method.This)
	if plan.inTask {
		ctx.Session.Registry.Put(&failing{method.This, plan.fault}) // a session's own objects go before all others
		return nil, nil
	}
	return nil, plan.fault
}

// fill gives a fault's fields values that parse: a client refuses an empty reference or power state.
func fill(value reflect.Value, this types.ManagedObjectReference) {
	for i := 0; i < value.NumField(); i++ {
		field := value.Field(i)
		switch field.Interface().(type) {
		case types.ManagedObjectReference:
			if value.Type().Field(i).Name == "Task" {
				this = types.ManagedObjectReference{Type: "Task", Value: "task-0"}
			}
			field.Set(reflect.ValueOf(this))
		case types.VirtualMachinePowerState:
			field.SetString(string(types.VirtualMachinePowerStatePoweredOn))
		default:
			if field.Kind() == reflect.Struct {
				fill(field, this)
			}
		}
	}
}

func newFault(name string) (types.BaseMethodFault, bool) {
	kind, ok := types.TypeFunc()(name)
	if !ok {
		return nil, false
	}
	fault, ok := reflect.New(kind).Interface().(types.BaseMethodFault)
	return fault, ok
}

func control(model *simulator.Model) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		q := r.URL.Query()
		number := func(key string, otherwise int) int {
			if n, err := strconv.Atoi(q.Get(key)); err == nil {
				return n
			}
			return otherwise
		}
		switch {
		case q.Has("fault"):
			fault, ok := newFault(q.Get("fault"))
			if !ok {
				http.Error(w, "no such fault", http.StatusBadRequest)
				return
			}
			faults[q.Get("method")] = &planned{fault, q.Get("as") == "task", number("times", 1)}
		case q.Has("status"):
			simulator.StatusSDK = number("status", http.StatusServiceUnavailable)
		case q.Has("delay"):
			slower := map[string]int{q.Get("delay"): number("ms", 0)}
			for name, ms := range model.DelayConfig.MethodDelay {
				if _, there := slower[name]; !there {
					slower[name] = ms
				}
			}
			model.DelayConfig.MethodDelay = slower
		case q.Has("sessions"):
			drop(model)
		case q.Has("calls"):
			_ = json.NewEncoder(w).Encode(calls)
		default:
			http.Error(w, "fault, status, delay, sessions or calls", http.StatusBadRequest)
		}
	}
}

func drop(model *simulator.Model) {
	ctx := model.Service.Context
	ctx.Session = &simulator.Session{
		UserSession: types.UserSession{Key: "-"}, Registry: simulator.NewRegistry(), Map: ctx.Map,
	}
	manager := ctx.Map.SessionManager()
	keys := []string{}
	for _, one := range ctx.Session.Get(manager.Self).(*simulator.SessionManager).SessionList {
		keys = append(keys, one.Key)
	}
	manager.TerminateSession(ctx, &types.TerminateSession{This: manager.Self, SessionId: keys})
}

func main() {
	esx := flag.Bool("esx", false, "an ESXi host alone instead of a vCenter")
	listen := flag.String("l", "127.0.0.1:0", "address to listen on")
	clusters := flag.Int("clusters", 1, "clusters")
	hosts := flag.Int("hosts", 2, "hosts of each cluster")
	vms := flag.Int("vms", 0, "virtual machines that are there already, in each resource pool")
	stores := flag.Int("ds", 2, "datastores")
	_ = flag.String("for", "", "whose it is; told by the command line")
	flag.Parse()

	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	} else {
		model.Host, model.Cluster, model.ClusterHost = 0, *clusters, *hosts
	}
	model.Machine, model.Datastore, model.Autostart = *vms, *stores, false
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()
	model.Service.TLS = new(tls.Config)
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword("user", "pass")}
	model.Service.HandleFunc("/_ctl", control(model))
	model.Service.HandleFunc("POST /nfc/", keepDisks(model))
	model.Service.HandleFunc("PUT /nfc/", keepDisks(model))
	model.Map().Handler = meet
	server := model.Service.NewServer()
	fmt.Printf("READY %s\n", server.URL.Host)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() { // whoever started it may be killed
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop <- syscall.SIGTERM
	}()
	<-stop
}
