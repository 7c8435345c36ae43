// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio over virtio-msg over Xen: xenbus.
 *
 * Each xenbus device carries one virtio device. Its lifecycle (sections 1 and 7
 * of docs/virtio-msg-xen.md) is driven by one work item, which looks at the
 * state that the back end is in and does the next step; it is kicked by
 * xenstore, and by the channel when that fails. The steps may take long: they
 * register and unregister disks. xenbus' own thread, which serves all devices,
 * does not wait for them, except when the guest resumes.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/pm.h>
#include <linux/pm_domain.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <xen/xen.h>

#include "compat.h"
#include "virtio_msg_xen.h"

/* How long a back end may take to answer the front end's first state, or to close. */
#define PATIENCE	(5 * HZ)
#define CLOSE_TIMEOUT	(10 * HZ)
#define POLL_MS		5
/* When to look again at a state that could not be read. */
#define RETRY		HZ
/* How long requests in flight may still complete when the channel has failed. */
#define DRAIN_TIME	(2 * HZ)

static void kick_lifecycle(struct vmsg_dev *d)
{
	mod_delayed_work(system_long_wq, &d->work, 0);
}

/*
 * The channel has failed (section 8). From any context.
 *
 * Breaking the virtqueues makes all requests fail that come after it, but also
 * loses those in flight, which the back end may well still answer. So it
 * happens a little later; and independent of the lifecycle, which may itself
 * be waiting for a request that cannot be queued any more.
 */
void vmsg_channel_failed(struct vmsg_dev *d)
{
	mod_delayed_work(system_long_wq, &d->drain, DRAIN_TIME);
	kick_lifecycle(d);
}

static void drained(struct work_struct *work)
{
	struct vmsg_dev *d = container_of(to_delayed_work(work), struct vmsg_dev, drain);

	if (d->vdev)
		vmsg_vdev_break(d->vdev);
}

/*
 * The back end's state, Closed if it has none any more. Unknown: there is one, but
 * it cannot be read for the moment, or is no number. xenbus does not tell that from
 * a node that is not there.
 */
static enum xenbus_state backend_state(struct vmsg_dev *d)
{
	enum xenbus_state state;
	char *node;

	/* xenbus found none when the guest resumed. */
	if (!d->xdev->otherend)
		return XenbusStateClosed;
	state = xenbus_read_driver_state(d->xdev->otherend);
	if (state != XenbusStateUnknown)
		return state;

	node = xenbus_read(XBT_NIL, d->xdev->otherend, "state", NULL);
	/* What was removed from a directory that one may not see is denied. */
	if (node == ERR_PTR(-ENOENT) || node == ERR_PTR(-EACCES))
		return XenbusStateClosed;
	if (!IS_ERR(node))
		kfree(node);
	return XenbusStateUnknown;
}

static bool is_leaving(enum xenbus_state state)
{
	return state == XenbusStateClosing || state == XenbusStateClosed;
}

static bool is_unplugged(struct vmsg_dev *d)
{
	return !xenbus_read_unsigned(d->xdev->otherend, "online", 1);
}

/*
 * Polls, because nobody may be there to hear of the change: the watch is gone
 * when a driver is unbound, and its thread is busy while the guest suspends.
 */
static void wait_until_closed(struct vmsg_dev *d)
{
	unsigned long end = jiffies + CLOSE_TIMEOUT;

	while (backend_state(d) != XenbusStateClosed) {
		if (time_after(jiffies, end)) {
			dev_warn(&d->xdev->dev, "the back end does not close\n");
			return;
		}
		msleep(POLL_MS);
	}
}

/* Takes back all that was shared. No virtqueue may be left. */
static void disconnect(struct vmsg_dev *d)
{
	if (d->phase == VMSG_CONNECTED)
		vmsg_pool_drop(d);
	vmsg_channel_close(d);
	/* Nothing queues it again before the channel is opened. */
	cancel_delayed_work_sync(&d->drain);

	if (d->phase != VMSG_IDLE) {
		xenbus_switch_state(d->xdev, XenbusStateClosing);
		xenbus_switch_state(d->xdev, XenbusStateClosed);
		wait_until_closed(d);
	}
	vmsg_pool_destroy(d);
	vmsg_channel_destroy(d);
	d->phase = VMSG_IDLE;
}

#ifdef CONFIG_PM_SLEEP
static int freeze_vdev(struct vmsg_dev *d)
{
	struct device *dev = &d->vdev->dev;
	int err;

	vmsg_channel_listen(d, NULL);
	device_lock(dev);
	err = virtio_device_freeze(d->vdev);
	d->frozen = !err;
	device_unlock(dev);
	if (err)
		vmsg_channel_listen(d, d->vdev);
	return err;
}

/* With the virtio device's lock held. */
static int thaw_locked(struct vmsg_dev *d)
{
	int err;

	if (!d->frozen)
		return 0;
	d->frozen = false;
	err = vmsg_vdev_restore(d->vdev);
	if (err) {
		/*
		 * A driver that was not restored can be neither used nor
		 * unbound. Without a back end the restoration succeeds.
		 */
		vmsg_channel_fail(d, "the device cannot be restored");
		vmsg_vdev_restore(d->vdev);
	}
	return err;
}
#else
static int thaw_locked(struct vmsg_dev *d)
{
	return 0;
}
#endif

static int thaw_vdev(struct vmsg_dev *d)
{
	struct device *dev = &d->vdev->dev;
	bool was_frozen;
	int err;

	device_lock(dev);
	was_frozen = d->frozen;
	err = thaw_locked(d);
	device_unlock(dev);

	/* A driver that was bound meanwhile found a device without a back end. */
	if (!was_frozen && dev->driver && device_reprobe(dev))
		dev_warn(dev, "the driver cannot be bound again\n");
	return err;
}

/*
 * A back end that takes long to come back leaves the device frozen meanwhile. A
 * driver that is unbound then is restored first, without a back end; one that is
 * bound then is not to be restored later. With the device's lock held.
 */
static int vmsg_binding_changes(struct notifier_block *nb, unsigned long action, void *dev)
{
	struct vmsg_dev *d = container_of(nb, struct vmsg_dev, binding);

	if (dev != &d->vdev->dev)
		return NOTIFY_DONE;
	if (action == BUS_NOTIFY_UNBIND_DRIVER)
		thaw_locked(d);
	else if (action == BUS_NOTIFY_BIND_DRIVER)
		d->frozen = false;
	return NOTIFY_OK;
}

static void leave(struct vmsg_dev *d)
{
	struct virtio_device *vdev = d->vdev;

	if (vdev) {
		vmsg_channel_listen(d, NULL);
		get_device(&vdev->dev);
		unregister_virtio_device(vdev);
		bus_unregister_notifier(vdev->dev.bus, &d->binding);
	}
	disconnect(d);
	if (vdev) {
		d->frozen = false;
		d->vdev = NULL;
		put_device(&vdev->dev);
	}
	xenbus_switch_state(d->xdev, XenbusStateClosed);
	d->leaving = false;
}

/* The first step, also after a suspend and after another driver. */
static void begin(struct vmsg_dev *d)
{
	d->backend = d->xdev->otherend_id;
	d->patience = jiffies + PATIENCE;
	xenbus_switch_state(d->xdev, XenbusStateInitialising);
	kick_lifecycle(d);
}

/*
 * The back end is closed, or closing, while the front end waits for it to begin.
 * It may not have noticed yet that there is somebody; but when there is no
 * sign of life after a while, whoever waits for the device (modprobe does)
 * should not wait for ever.
 */
static void wait_or_give_up(struct vmsg_dev *d)
{
	char *reason;

	if (d->frozen || d->xdev->state == XenbusStateClosed)
		return;
	if (!is_unplugged(d)) {
		if (time_before(jiffies, d->patience)) {
			/* Not mod_delayed_work(): a kick may have come meanwhile. */
			queue_delayed_work(system_long_wq, &d->work, d->patience - jiffies + 1);
			return;
		}
		reason = xenbus_read(XBT_NIL, d->xdev->otherend, "error", NULL);
		dev_err(&d->xdev->dev, "the back end is closed: %s\n",
			IS_ERR_OR_NULL(reason) ? "no reason given" : reason);
		if (!IS_ERR(reason))
			kfree(reason);
	}
	xenbus_switch_state(d->xdev, XenbusStateClosed);
}

static int write_nodes(struct vmsg_dev *d)
{
	const char *dir = d->xdev->nodename;
	int err;

	err = xenbus_printf(XBT_NIL, dir, "virtio-msg-revision", "%u", VMSG_REVISION);
	if (!err)
		err = xenbus_printf(XBT_NIL, dir, "ring-ref", "%u", d->channel.gref);
	if (!err)
		err = xenbus_printf(XBT_NIL, dir, "event-channel", "%u", d->channel.port);
	return err;
}

/* Step 2 of section 1.2. */
static void offer(struct vmsg_dev *d)
{
	int err;

	if (!xenbus_read_unsigned(d->xdev->otherend, "virtio-msg-revision", 0)) {
		xenbus_dev_fatal(d->xdev, -EPROTO, "the back end does not speak virtio-msg");
		goto fail;
	}
	err = vmsg_channel_setup(d);
	if (err) {
		xenbus_dev_fatal(d->xdev, err, "setting up the message page");
		goto fail;
	}
	d->phase = VMSG_OFFERED;
	err = write_nodes(d);
	if (err) {
		xenbus_dev_fatal(d->xdev, err, "writing the front end's nodes");
		goto fail;
	}
	xenbus_switch_state(d->xdev, XenbusStateInitialised);
	return;

fail:
	d->leaving = true;
}

static int add_vdev(struct vmsg_dev *d)
{
	struct virtio_device *vdev = vmsg_vdev_create(d);
	int err;

	if (IS_ERR(vdev))
		return PTR_ERR(vdev);
	/* Drivers are probed before this returns: the channel may fail under them. */
	d->vdev = vdev;
	err = register_virtio_device(vdev);
	if (err) {
		/* As in disconnect(), which comes too late for this device. */
		vmsg_channel_close(d);
		cancel_delayed_work_sync(&d->drain);
		d->vdev = NULL;
		put_device(&vdev->dev);
		return err;
	}
	bus_register_notifier(vdev->dev.bus, &d->binding);
	return 0;
}

/* Step 4 of section 1.2. */
static void connect(struct vmsg_dev *d)
{
	int err;

	d->phase = VMSG_CONNECTED;
	vmsg_channel_open(d);
	vmsg_pool_setup(d, xenbus_read_unsigned(d->xdev->otherend, "max-pool-pages", 0));

	if (!d->vdev) {
		err = add_vdev(d);
	} else {
		err = vmsg_vdev_check(d, d->vdev);
		if (err)
			vmsg_channel_fail(d, "another device has taken its place");
		else
			err = thaw_vdev(d);
	}
	if (!err && !vmsg_channel_is_open(d))
		err = -ENODEV;
	if (err) {
		xenbus_dev_fatal(d->xdev, err, "starting the device");
		d->leaving = true;
		return;
	}
	vmsg_channel_listen(d, d->vdev);
	xenbus_switch_state(d->xdev, XenbusStateConnected);
}

/* Requests in flight are lost for good, and the virtio device is of no use any more. */
static bool is_given_up(struct vmsg_dev *d)
{
	return d->phase == VMSG_CONNECTED && !vmsg_channel_is_open(d);
}

/*
 * The channel has failed. The virtio device stays until somebody unbinds it or
 * the toolstack removes it: to unregister it could wait for requests that will
 * never be answered.
 */
static void retire(struct vmsg_dev *d)
{
	xenbus_switch_state(d->xdev, XenbusStateClosing);
	if (is_unplugged(d))
		d->leaving = true;
}

/* Sets d->leaving where the device is to be unregistered: that may wait for processes that are frozen. */
static void step(struct vmsg_dev *d, enum xenbus_state backend)
{
	/* Memory is not to be had by writing to a disk that waits for this. */
	unsigned int flags = memalloc_noio_save();

	switch (d->phase) {
	case VMSG_IDLE:
		if (backend == XenbusStateInitWait)
			offer(d);
		else if (is_leaving(backend))
			wait_or_give_up(d);
		break;
	case VMSG_OFFERED:
		if (backend == XenbusStateConnected)
			connect(d);
		else if (is_leaving(backend))
			d->leaving = true;
		break;
	case VMSG_CONNECTED:
		/* Requests in flight are lost, so nobody may wait for them. */
		if (backend == XenbusStateClosed)
			vmsg_channel_fail(d, "the back end has closed");
		if (is_given_up(d))
			retire(d);
		else if (is_leaving(backend))
			d->leaving = true;
		break;
	}
	memalloc_noio_restore(flags);
}

static void lifecycle(struct work_struct *work)
{
	struct vmsg_dev *d = container_of(to_delayed_work(work), struct vmsg_dev, work);
	enum xenbus_state backend;

	mutex_lock(&d->lock);
	if (!d->suspended) {
		backend = backend_state(d);
		if (!d->leaving)
			step(d, backend);
		if (d->leaving)
			leave(d);
		else if (backend == XenbusStateUnknown)
			queue_delayed_work(system_long_wq, &d->work, RETRY);
	}
	mutex_unlock(&d->lock);
}

static void vmsg_otherend_changed(struct xenbus_device *xdev, enum xenbus_state state)
{
	struct vmsg_dev *d = dev_get_drvdata(&xdev->dev);

	if (state == XenbusStateUnknown)
		state = backend_state(d);
	/* Whoever waits for an answer now would wait in vain. */
	if (state == XenbusStateClosed)
		vmsg_channel_fail(d, "the back end has closed");
	kick_lifecycle(d);
}

/*
 * Suspend. Grants and event channels do not survive it, so the front end leaves
 * before and comes back after (section 7). xenbus tells its drivers of a
 * suspend and of the resume in a new domain, but not of a suspend that was
 * cancelled or a checkpoint; hence a PM domain, which hears of all three.
 */
#ifdef CONFIG_PM_SLEEP
static int vmsg_freeze(struct device *dev)
{
	struct vmsg_dev *d = dev_get_drvdata(dev);
	int err = 0;

	mutex_lock(&d->lock);
	/* xenbus may not have come to tell of it: its thread is what suspends the guest. */
	if (d->phase == VMSG_CONNECTED && backend_state(d) == XenbusStateClosed)
		vmsg_channel_fail(d, "the back end has closed");
	/* To freeze that would be to wait for the requests that are lost. It stays as it is. */
	if (!is_given_up(d)) {
		if (d->vdev && !d->frozen)
			err = freeze_vdev(d);
		if (!err)
			disconnect(d);
	}
	d->suspended = !err;
	mutex_unlock(&d->lock);
	return err;
}

static int vmsg_thaw(struct device *dev)
{
	struct vmsg_dev *d = dev_get_drvdata(dev);
	unsigned long end = jiffies + PATIENCE;

	mutex_lock(&d->lock);
	d->suspended = false;
	if (is_given_up(d))
		kick_lifecycle(d);
	else
		begin(d);
	/*
	 * User space is not to meet a frozen device, as far as that can be helped.
	 * Watches do not fire before this returns.
	 */
	while (d->frozen && !d->leaving && time_before(jiffies, end)) {
		step(d, backend_state(d));
		msleep(POLL_MS);
	}
	mutex_unlock(&d->lock);
	return 0;
}

static int vmsg_restore(struct device *dev)
{
	struct vmsg_dev *d = dev_get_drvdata(dev);
	/* Finds and watches the back end, which may be another one now. */
	int err = dev->bus->pm->restore(dev);

	if (err) {
		/* There is none. Requests are to fail then, not to wait. */
		mutex_lock(&d->lock);
		if (d->frozen)
			thaw_vdev(d);
		mutex_unlock(&d->lock);
		return err;
	}
	/* xenbus takes it for that of a new domain. If the guest never left, it is Closed. */
	d->xdev->state = XenbusStateUnknown;
	return vmsg_thaw(dev);
}
#else
#define vmsg_freeze	NULL
#define vmsg_thaw	NULL
#define vmsg_restore	NULL
#endif

static struct dev_pm_domain vmsg_pm_domain = {
	.ops = {
		.freeze		= vmsg_freeze,
		.thaw		= vmsg_thaw,
		.restore	= vmsg_restore,
	},
};

static int vmsg_probe(struct xenbus_device *xdev, const struct xenbus_device_id *id)
{
	struct vmsg_dev *d = kzalloc(sizeof(*d), GFP_KERNEL);

	if (!d)
		return -ENOMEM;

	d->xdev = xdev;
	d->phase = VMSG_IDLE;
	mutex_init(&d->lock);
	INIT_DELAYED_WORK(&d->work, lifecycle);
	INIT_DELAYED_WORK(&d->drain, drained);
	d->binding.notifier_call = vmsg_binding_changes;
	vmsg_channel_init(d);
	dev_set_drvdata(&xdev->dev, d);
	vmsg_dma_attach(d);
	dev_pm_domain_set(&xdev->dev, &vmsg_pm_domain);
	begin(d);
	return 0;
}

static void vmsg_remove(struct xenbus_device *xdev)
{
	struct vmsg_dev *d = dev_get_drvdata(&xdev->dev);

	mutex_lock(&d->lock);
	d->suspended = true;
	leave(d);
	mutex_unlock(&d->lock);
	/* Nobody is left to kick it: the watch and the interrupt are gone. */
	cancel_delayed_work_sync(&d->work);

	dev_pm_domain_set(&xdev->dev, NULL);
	vmsg_dma_detach(d);
	dev_set_drvdata(&xdev->dev, NULL);
	kfree(d);
}

static int __maybe_unused vmsg_remove_int(struct xenbus_device *xdev)
{
	vmsg_remove(xdev);
	return 0;
}

static const struct xenbus_device_id vmsg_ids[] = {
	{ "virtio_disk" },
	{ "virtio" },
	{ "" }
};

static struct xenbus_driver vmsg_driver = {
	.name			= "virtio_msg_xen",
	.ids			= vmsg_ids,
	.allow_rebind		= true,
	.probe			= vmsg_probe,
	.remove			= VMSG_REMOVE(vmsg_remove),
	.otherend_changed	= vmsg_otherend_changed,
};

static int __init vmsg_init(void)
{
	if (!xen_domain())
		return -ENODEV;
	return xenbus_register_frontend(&vmsg_driver);
}
module_init(vmsg_init);

static void __exit vmsg_exit(void)
{
	xenbus_unregister_driver(&vmsg_driver);
}
module_exit(vmsg_exit);

MODULE_DESCRIPTION("virtio devices of Xen driver domains, over virtio-msg");
MODULE_LICENSE("GPL");
MODULE_ALIAS("xen:virtio_disk");
MODULE_ALIAS("xen:virtio");
