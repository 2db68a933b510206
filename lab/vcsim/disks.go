package main

import (
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const sector = 512

// keepDisks writes what NFC leases are sent into the disks that they are for, which the simulator itself does not. The
// checksum that a lease names stays the simulator's.
func keepDisks(model *simulator.Model) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		file, size := flatOf(model, path.Base(r.URL.Path))
		if file == "" {
			simulator.ServeNFC(w, r)
			return
		}
		reader, writer := io.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := unpack(reader, file, size); err != nil {
				log.Printf("%s: %s", file, err)
			}
			_, _ = io.Copy(io.Discard, reader) // whatever comes behind it
		}()
		r.Body = io.NopCloser(io.TeeReader(r.Body, writer))
		simulator.ServeNFC(w, r)
		_ = writer.Close()
		<-ended
	}
}

// flatOf returns the local file with the content of the disk of that name, and its size; "" if no VM has one.
func flatOf(model *simulator.Model, name string) (string, int64) {
	registry := model.Map()
	for _, one := range registry.All("VirtualMachine") {
		vm := one.(*simulator.VirtualMachine)
		for _, device := range object.VirtualDeviceList(vm.Config.Hardware.Device).SelectByType((*types.VirtualDisk)(nil)) {
			backing, ok := device.GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			if !ok || path.Base(backing.FileName) != name {
				continue
			}
			var where object.DatastorePath
			where.FromString(backing.FileName)
			for _, ref := range vm.Datastore {
				store := registry.Get(ref).(*simulator.Datastore)
				if store.Name == where.Datastore {
					file := filepath.Join(store.Summary.Url, where.Path)
					size := device.(*types.VirtualDisk).CapacityInKB * 1024
					return strings.Replace(file, ".vmdk", "-flat.vmdk", 1), size
				}
			}
		}
	}
	return "", 0
}

// unpack writes the disk of a streamOptimized VMDK to a file of that size, with holes.
// https://github.com/vmware/open-vmdk/blob/master/vmdk/vmware_vmdk.h
func unpack(stream io.Reader, target string, size int64) error {
	header := make([]byte, sector)
	if _, err := io.ReadFull(stream, header); err != nil {
		return err
	}
	if string(header[:4]) != "KDMV" {
		return errors.New("what came is no VMDK")
	}
	overhead := int64(binary.LittleEndian.Uint64(header[64:])) // sectors before the first grain
	if _, err := io.CopyN(io.Discard, stream, (overhead-1)*sector); err != nil {
		return err
	}
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	for {
		done, err := unpackGrain(stream, file)
		if done || err != nil {
			return err
		}
	}
}

// unpackGrain reads a marker and what follows it; true at the end of the stream.
func unpackGrain(stream io.Reader, file *os.File) (bool, error) {
	marker := make([]byte, 12)
	if _, err := io.ReadFull(stream, marker); err != nil {
		return errors.Is(err, io.EOF), err
	}
	value, size := int64(binary.LittleEndian.Uint64(marker)), int64(binary.LittleEndian.Uint32(marker[8:]))
	if size == 0 { // tables and the end, which need no reading: grains say themselves where they belong
		kind := make([]byte, sector-12)
		if _, err := io.ReadFull(stream, kind); err != nil {
			return false, err
		}
		if binary.LittleEndian.Uint32(kind) == 0 {
			return true, nil
		}
		_, err := io.CopyN(io.Discard, stream, value*sector)
		return false, err
	}
	packed := io.LimitReader(stream, size)
	grain, err := zlib.NewReader(packed)
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(io.NewOffsetWriter(file, value*sector), grain); err != nil {
		return false, err
	}
	_, _ = io.Copy(io.Discard, packed)
	_, err = io.CopyN(io.Discard, stream, (sector-(12+size)%sector)%sector)
	return false, err
}
