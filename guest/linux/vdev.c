// SPDX-License-Identifier: GPL-2.0-only
/*
 * The virtio device: configuration operations over messages, virtqueues with an
 * event channel each (section 4).
 *
 * None of these operations can tell the virtio core that the back end is gone.
 * When it is (the channel is not open), they go on as if there were a device
 * that agrees to everything, with the configuration that was last seen, and
 * queues that are broken from the start. So a driver can always be bound,
 * unbound and resumed; its requests fail with I/O errors.
 */
#include <linux/cpumask.h>
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <xen/events.h>

#include "compat.h"
#include "virtio_msg_xen.h"

/* What a device may claim; all bound memory, and are well over what any needs. */
#define MAX_CONFIG_SIZE		4096
#define MAX_QUEUE_SIZE		1024U
/* 64 pairs of a network device, and the one that controls them. */
#define MAX_QUEUES		129U

#define SET_CONFIG_ATTEMPTS	3
/* How often a reader starts again because the configuration has changed meanwhile. */
#define MAX_REREADS		32

struct vmsg_vdev {
	struct virtio_device vdev;
	struct vmsg_dev	*d;
	bool		had_queues;
	bool		restoring;	/* the configuration is not to change */
	u32		max_vqs;
	u8		status;
	u32		generation;
	u32		generation_told;	/* to the virtio core */
	unsigned int	rereads;
	u32		config_size;
	u8		config[];	/* as last read or written */
};

struct vmsg_vq {
	evtchn_port_t	port;
	int		irq;	/* 0: the queue has no event channel */
	u16		used_seen;	/* the used index at the last interrupt */
	struct mutex	hint_lock;	/* one change of the interrupt's affinity hint at a time */
	cpumask_var_t	affinity;	/* what the driver asked for, empty for nothing */
	char		name[48];
};

static struct vmsg_vdev *to_vmsg_vdev(struct virtio_device *vdev)
{
	return container_of(vdev, struct vmsg_vdev, vdev);
}

static bool alive(struct vmsg_vdev *v)
{
	return vmsg_channel_is_open(v->d);
}

/* A refusal that virtio has no way to report. */
static void refused(struct vmsg_vdev *v, const char *what)
{
	vmsg_channel_fail(v->d, what);
}

/* Configuration space */

static int read_chunk(struct vmsg_vdev *v, u32 offset, u32 length)
{
	struct vmsg_get_config request = {
		.offset = cpu_to_le32(offset),
		.length = cpu_to_le32(length),
	};
	struct {
		struct vmsg_config head;
		u8 data[VMSG_CONFIG_CHUNK];
	} response;
	int err;

	err = vmsg_request(v->d, VMSG_GET_CONFIG, &request, sizeof(request),
			   &response, sizeof(response.head) + length);
	if (err)
		return err;
	if (response.head.offset != request.offset || response.head.length != request.length)
		return -EIO;

	v->generation = le32_to_cpu(response.head.generation);
	memcpy(v->config + offset, response.data, length);
	return 0;
}

static void vmsg_get(struct virtio_device *vdev, unsigned int offset, void *buf, unsigned int len)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	unsigned int done, chunk;

	memset(buf, 0, len);
	if (offset >= v->config_size)
		return;
	len = min(len, v->config_size - offset);

	for (done = 0; done < len && alive(v) && !READ_ONCE(v->restoring); done += chunk) {
		chunk = min_t(unsigned int, len - done, VMSG_CONFIG_CHUNK);
		if (read_chunk(v, offset + done, chunk))
			refused(v, "the configuration cannot be read");
	}
	memcpy(buf, v->config + offset, len);
}

/* True: written. False: the configuration has changed meanwhile. */
static bool write_chunk(struct vmsg_vdev *v, u32 offset, const void *data, u32 length)
{
	struct {
		struct vmsg_config head;
		u8 data[VMSG_CONFIG_CHUNK];
	} request = {
		.head.generation = cpu_to_le32(v->generation),
		.head.offset = cpu_to_le32(offset),
		.head.length = cpu_to_le32(length),
	};
	struct vmsg_config response;

	memcpy(request.data, data, length);
	if (vmsg_request(v->d, VMSG_SET_CONFIG, &request, sizeof(request.head) + length,
			 &response, sizeof(response))) {
		refused(v, "the configuration cannot be written");
		return true;
	}
	v->generation = le32_to_cpu(response.generation);
	return response.length == cpu_to_le32(length);
}

static void vmsg_set(struct virtio_device *vdev, unsigned int offset, const void *buf,
		     unsigned int len)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	unsigned int done, chunk, attempt;

	if (offset >= v->config_size)
		return;
	len = min(len, v->config_size - offset);

	for (done = 0; done < len; done += chunk) {
		chunk = min_t(unsigned int, len - done, VMSG_CONFIG_CHUNK);
		for (attempt = 0; attempt < SET_CONFIG_ATTEMPTS; attempt++)
			if (write_chunk(v, offset + done, buf + done, chunk))
				break;
	}
}

/*
 * The generation that the last answer told. A reader compares it before and
 * after: what changed in between shows in the answers it got. It reads until
 * they are the same, which a back end could put off for ever.
 */
static u32 vmsg_generation(struct virtio_device *vdev)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);

	if (v->generation == v->generation_told)
		v->rereads = 0;
	else if (++v->rereads > MAX_REREADS)
		refused(v, "the configuration does not stay the same");
	v->generation_told = v->generation;
	return v->generation;
}

/* In interrupt context, by message from the back end. */
void vmsg_vdev_config_event(struct virtio_device *vdev, u32 status)
{
	if (status & VIRTIO_CONFIG_S_NEEDS_RESET)
		dev_err_ratelimited(&vdev->dev, "the device needs a reset\n");
	virtio_config_changed(vdev);
}

/* Status and features */

/*
 * The answer to SET_DEVICE_STATUS has the resulting status, so no other message
 * needs to ask for it. It is not believed to have what was not asked for: the
 * virtio core warns of a device that claims to be alive after a reset.
 */
static void set_status(struct vmsg_vdev *v, u8 status)
{
	__le32 request = cpu_to_le32(status);
	__le32 response;

	WRITE_ONCE(v->status, status);
	if (!alive(v))
		return;
	if (vmsg_request(v->d, VMSG_SET_DEVICE_STATUS, &request, sizeof(request),
			 &response, sizeof(response))) {
		refused(v, "the status cannot be set");
		return;
	}
	if (status)
		WRITE_ONCE(v->status, status & le32_to_cpu(response));
	else if (response)
		refused(v, "the device does not reset");
}

static u8 vmsg_get_status(struct virtio_device *vdev)
{
	return to_vmsg_vdev(vdev)->status;
}

static void vmsg_set_status(struct virtio_device *vdev, u8 status)
{
	set_status(to_vmsg_vdev(vdev), status);
}

static void vmsg_synchronize_cbs(struct virtio_device *vdev)
{
	struct virtqueue *vq;

	virtio_device_for_each_vq(vdev, vq) {
		struct vmsg_vq *info = vq->priv;

		if (info && info->irq)
			synchronize_irq(info->irq);
	}
}

static void vmsg_reset(struct virtio_device *vdev)
{
	set_status(to_vmsg_vdev(vdev), 0);
	vmsg_synchronize_cbs(vdev);
}

static u64 vmsg_get_features(struct virtio_device *vdev)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	struct vmsg_features response;
	struct {
		__le32 block_index;
		__le32 num_blocks;
	} request = { 0, cpu_to_le32(VMSG_FEATURE_BLOCKS) };

	if (!alive(v))
		return 0;
	if (vmsg_request(v->d, VMSG_GET_DEVICE_FEATURES, &request, sizeof(request),
			 &response, sizeof(response))) {
		refused(v, "the features cannot be read");
		return 0;
	}
	return le32_to_cpu(response.features[0]) | (u64)le32_to_cpu(response.features[1]) << 32;
}

static int vmsg_finalize_features(struct virtio_device *vdev)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	bool ring_reset = __virtio_test_bit(vdev, VIRTIO_F_RING_RESET);
	struct vmsg_features request = {
		.num_blocks = cpu_to_le32(VMSG_FEATURE_BLOCKS),
	};

	vring_transport_features(vdev);
	/* The rings leave this one to the transport. */
	if (ring_reset)
		__virtio_set_bit(vdev, VIRTIO_F_RING_RESET);
	/* The bus has no way to carry it. */
	__virtio_clear_bit(vdev, VIRTIO_F_NOTIFICATION_DATA);

	if (!alive(v))
		return 0;

	/* Section 3: addresses are grants, and virtio 1 knows where they go. */
	if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1) ||
	    !__virtio_test_bit(vdev, VIRTIO_F_ACCESS_PLATFORM)) {
		dev_err(&vdev->dev, "VERSION_1 or ACCESS_PLATFORM is not offered\n");
		return -EINVAL;
	}

	request.features[0] = cpu_to_le32(lower_32_bits(vdev->features));
	request.features[1] = cpu_to_le32(upper_32_bits(vdev->features));
	return vmsg_request(v->d, VMSG_SET_DRIVER_FEATURES, &request, sizeof(request), NULL, 0);
}

/* Virtqueues */

static bool vmsg_notify(struct virtqueue *vq)
{
	struct vmsg_vq *info = vq->priv;

	if (unlikely(!info->irq))
		return false;
	notify_remote_via_evtchn(info->port);
	return true;
}

/*
 * Whether the device has used buffers of a split queue since the last interrupt.
 * They need not be there any more: network drivers look for them without being
 * interrupted.
 */
static bool has_progressed(struct virtqueue *vq)
{
	struct vmsg_vq *info = vq->priv;
	u16 used;

	used = le16_to_cpu((__force __le16)READ_ONCE(virtqueue_get_vring(vq)->used->idx));
	if (used == info->used_seen)
		return false;
	info->used_seen = used;
	return true;
}

/*
 * An interrupt that nothing has happened before is rare, and harmless from time
 * to time; one that comes again and again is throttled, by up to a second.
 */
static irqreturn_t queue_interrupt(int irq, void *data)
{
	struct virtqueue *vq = data;
	bool packed = virtio_has_feature(vq->vdev, VIRTIO_F_RING_PACKED);
	bool wanted = false;

	/* The driver expects callbacks only between DRIVER_OK and the reset. */
	if (READ_ONCE(to_vmsg_vdev(vq->vdev)->status) & VIRTIO_CONFIG_S_DRIVER_OK) {
		wanted = !packed && has_progressed(vq);
		if (vring_interrupt(irq, vq) == IRQ_HANDLED && packed)
			wanted = true;
		/* Nobody takes the buffers of a broken queue: they would be there for ever. */
		if (virtqueue_is_broken(vq))
			wanted = false;
	}
	xen_irq_lateeoi(irq, wanted ? 0 : XEN_EOI_FLAG_SPURIOUS);
	return IRQ_HANDLED;
}

static int get_vqueue(struct vmsg_vdev *v, u32 index, u32 *max_size, u32 *cur_size)
{
	__le32 request = cpu_to_le32(index);
	struct vmsg_vqueue_info response;
	int err;

	err = vmsg_request(v->d, VMSG_GET_VQUEUE, &request, sizeof(request),
			   &response, sizeof(response));
	if (err)
		return err;
	*max_size = le32_to_cpu(response.max_size);
	*cur_size = le32_to_cpu(response.cur_size);
	return 0;
}

static int open_event_channel(struct vmsg_vdev *v, struct virtqueue *vq)
{
	struct xenbus_device *xdev = v->d->xdev;
	struct vmsg_vq *info = vq->priv;
	struct vmsg_vqueue_event_status response;
	struct vmsg_set_vqueue_event request;
	int err;

	err = xenbus_alloc_evtchn(xdev, &info->port);
	if (err)
		return err;
	info->used_seen = 0;
	err = bind_evtchn_to_irqhandler_lateeoi(info->port, queue_interrupt, 0, info->name, vq);
	if (err < 0) {
		xenbus_free_evtchn(xdev, info->port);
		return err;
	}
	mutex_lock(&info->hint_lock);
	info->irq = err;
	if (!cpumask_empty(info->affinity))
		irq_set_affinity_hint(info->irq, info->affinity);
	mutex_unlock(&info->hint_lock);

	request.index = cpu_to_le32(vq->index);
	request.port = cpu_to_le32(info->port);
	err = vmsg_request(v->d, VMSG_XEN_SET_VQUEUE_EVENT, &request, sizeof(request),
			   &response, sizeof(response));
	if (err)
		return err;
	return response.status ? -EIO : 0;
}

static void close_event_channel(struct virtqueue *vq)
{
	struct vmsg_vq *info = vq->priv;

	mutex_lock(&info->hint_lock);
	if (info->irq) {
		/* The core complains of a hint that outlives its handler. */
		irq_set_affinity_hint(info->irq, NULL);
		unbind_from_irqhandler(info->irq, vq);
		info->irq = 0;
	}
	mutex_unlock(&info->hint_lock);
}

/*
 * The virtio core finds the end of a finished chain in the descriptor table that
 * the device has, which is therefore not to change. The used ring, which the
 * device writes, begins on the next page. Packed queues are one ring that the
 * device writes; the core goes by its own copy of what it put there.
 */
static int protect_areas(struct vmsg_vdev *v, struct virtqueue *vq)
{
	dma_addr_t start = virtqueue_get_desc_addr(vq);
	unsigned int pages;

	if (virtio_has_feature(vq->vdev, VIRTIO_F_RING_PACKED))
		return 0;
	pages = (virtqueue_get_used_addr(vq) - start) >> VMSG_GRANT_SHIFT;
	return vmsg_dma_protect(v->d, start, virtqueue_get_vring(vq)->desc, pages);
}

/* Lets the device use the queue, with a fresh event channel. */
static int start_vq(struct vmsg_vdev *v, struct virtqueue *vq)
{
	u32 size = virtqueue_get_vring_size(vq);
	struct vmsg_set_vqueue request = {
		.index = cpu_to_le32(vq->index),
		.size = cpu_to_le32(size),
		.desc_addr = cpu_to_le64(virtqueue_get_desc_addr(vq)),
		.driver_addr = cpu_to_le64(virtqueue_get_avail_addr(vq)),
		.device_addr = cpu_to_le64(virtqueue_get_used_addr(vq)),
	};
	u32 max_size, cur_size;
	int err;

	err = protect_areas(v, vq);
	if (!err)
		err = open_event_channel(v, vq);
	if (!err)
		err = vmsg_request(v->d, VMSG_SET_VQUEUE, &request, sizeof(request), NULL, 0);
	if (!err)
		err = get_vqueue(v, vq->index, &max_size, &cur_size);
	/* The answer to SET_VQUEUE is empty: this is how it tells of failure. */
	if (!err && cur_size != size)
		err = -EIO;
	if (err)
		close_event_channel(vq);
	return err;
}

static struct vmsg_vq *alloc_vq_info(void)
{
	struct vmsg_vq *info = kzalloc(sizeof(*info), GFP_KERNEL);

	if (info && !zalloc_cpumask_var(&info->affinity, GFP_KERNEL)) {
		kfree(info);
		return NULL;
	}
	if (info)
		mutex_init(&info->hint_lock);
	return info;
}

static void free_vq_info(struct vmsg_vq *info)
{
	free_cpumask_var(info->affinity);
	kfree(info);
}

static void del_vq(struct virtqueue *vq)
{
	struct vmsg_vq *info = vq->priv;

	close_event_channel(vq);
	vring_del_virtqueue(vq);
	free_vq_info(info);
}

static void vmsg_del_vqs(struct virtio_device *vdev)
{
	struct virtqueue *vq, *next;

	list_for_each_entry_safe(vq, next, &vdev->vqs, list)
		del_vq(vq);
}

static struct virtqueue *add_vq(struct virtio_device *vdev, unsigned int index,
				const struct virtqueue_info *wanted)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	u32 size = MAX_QUEUE_SIZE, in_use = 0;
	bool usable = alive(v);
	struct vmsg_vq *info;
	struct virtqueue *vq;
	int err;

	if (index >= MAX_QUEUES)
		return ERR_PTR(-ENOENT);
	if (usable) {
		if (index >= v->max_vqs)
			return ERR_PTR(-ENOENT);
		err = get_vqueue(v, index, &size, &in_use);
		if (err)
			return ERR_PTR(err);
		if (!size || in_use)
			return ERR_PTR(-ENOENT);
		size = min(size, MAX_QUEUE_SIZE);
		if (!__virtio_test_bit(vdev, VIRTIO_F_RING_PACKED))
			size = rounddown_pow_of_two(size);
	}

	info = alloc_vq_info();
	if (!info)
		return ERR_PTR(-ENOMEM);
	vq = vring_create_virtqueue(index, size, VMSG_GRANT_PAGE, vdev, true, true, wanted->ctx,
				    vmsg_notify, wanted->callback, wanted->name);
	if (!vq) {
		free_vq_info(info);
		return ERR_PTR(-ENOMEM);
	}
	vq->num_max = size;
	vq->priv = info;
	snprintf(info->name, sizeof(info->name), "%s-%s", dev_name(&v->d->xdev->dev),
		 wanted->name);

	if (!usable) {
		__virtqueue_break(vq);
		return vq;
	}
	err = start_vq(v, vq);
	if (err) {
		del_vq(vq);
		return ERR_PTR(err);
	}
	return vq;
}

static int vmsg_find_vqs(struct virtio_device *vdev, unsigned int nvqs, struct virtqueue *vqs[],
			 struct virtqueue_info wanted[], struct irq_affinity *affinity)
{
	unsigned int i, index = 0;
	int err;

	vmsg_dma_claim(to_vmsg_vdev(vdev)->d);
	WRITE_ONCE(to_vmsg_vdev(vdev)->had_queues, true);
	for (i = 0; i < nvqs; i++) {
		if (!wanted[i].name) {
			vqs[i] = NULL;
			continue;
		}
		vqs[i] = add_vq(vdev, index++, &wanted[i]);
		if (IS_ERR(vqs[i])) {
			err = PTR_ERR(vqs[i]);
			goto undo;
		}
	}
	return 0;

undo:
	/* Grants may not end while the device still has the queues before this one. */
	if (!list_empty(&vdev->vqs))
		vmsg_reset(vdev);
	vmsg_del_vqs(vdev);
	return err;
}

#ifdef VMSG_FIND_VQS_TAKES_ARRAYS
static int vmsg_find_vqs_arrays(struct virtio_device *vdev, unsigned int nvqs,
				struct virtqueue *vqs[], vq_callback_t *callbacks[],
				const char * const names[], const bool *ctx,
				struct irq_affinity *affinity)
{
	struct virtqueue_info *wanted;
	unsigned int i;
	int err;

	wanted = kcalloc(nvqs, sizeof(*wanted), GFP_KERNEL);
	if (!wanted)
		return -ENOMEM;
	for (i = 0; i < nvqs; i++) {
		wanted[i].name = names[i];
		wanted[i].callback = callbacks[i];
		wanted[i].ctx = ctx && ctx[i];
	}
	err = vmsg_find_vqs(vdev, nvqs, vqs, wanted, affinity);
	kfree(wanted);
	return err;
}

#define vmsg_find_vqs_op	vmsg_find_vqs_arrays
#else
#define vmsg_find_vqs_op	vmsg_find_vqs
#endif

/*
 * Makes the queues refuse all requests, when the channel has failed. Before the
 * first queue there is nothing to break, nor has the virtio core made the list
 * of queues; those that come now are broken from the start.
 */
void vmsg_vdev_break(struct virtio_device *vdev)
{
	if (READ_ONCE(to_vmsg_vdev(vdev)->had_queues))
		virtio_break_device(vdev);
}

#ifdef CONFIG_PM_SLEEP
/*
 * Restores a driver. It reads the number of its queues again, but has made
 * everything else for that of before: a back end, which may be another one now,
 * has that many or is refused. What else has changed the driver looks at after.
 */
int vmsg_vdev_restore(struct virtio_device *vdev)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	int err;

	WRITE_ONCE(v->restoring, true);
	err = virtio_device_restore(vdev);
	WRITE_ONCE(v->restoring, false);
	if (!err && alive(v))
		virtio_config_changed(vdev);
	return err;
}
#endif

static int vmsg_disable_vq_and_reset(struct virtqueue *vq)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vq->vdev);
	__le32 request = cpu_to_le32(vq->index);
	u32 max_size, cur_size;
	int err;

	/* Drivers ask anyway. */
	if (!virtio_has_feature(vq->vdev, VIRTIO_F_RING_RESET))
		return -ENOENT;
	err = vmsg_request(v->d, VMSG_RESET_VQUEUE, &request, sizeof(request), NULL, 0);
	if (!err)
		err = get_vqueue(v, vq->index, &max_size, &cur_size);
	/* The answer to RESET_VQUEUE is empty, and so is that to a request that is not known. */
	if (!err && cur_size)
		err = -EIO;
	if (err)
		return err;
	/* The back end has closed its end (section 4); also ends callbacks. */
	close_event_channel(vq);
	vq->reset = true;
	return 0;
}

static int vmsg_enable_vq_after_reset(struct virtqueue *vq)
{
	int err;

	if (!vq->reset)
		return -EBUSY;
	err = start_vq(to_vmsg_vdev(vq->vdev), vq);
	if (err)
		/* Drivers go on using the queue all the same. */
		__virtqueue_break(vq);
	else
		vq->reset = false;
	return err;
}

/* The interrupt keeps the mask by reference, and the driver's is only good for the call. */
static int vmsg_set_vq_affinity(struct virtqueue *vq, const struct cpumask *mask)
{
	struct vmsg_vq *info = vq->priv;
	int err = 0;

	/* The queue may be reset meanwhile. */
	mutex_lock(&info->hint_lock);
	if (mask)
		cpumask_copy(info->affinity, mask);
	else
		cpumask_clear(info->affinity);
	/* Otherwise the queue has its next interrupt put there. */
	if (info->irq)
		err = irq_set_affinity_hint(info->irq, mask ? info->affinity : NULL);
	mutex_unlock(&info->hint_lock);
	return err;
}

static const char *vmsg_bus_name(struct virtio_device *vdev)
{
	return dev_name(&to_vmsg_vdev(vdev)->d->xdev->dev);
}

static const struct virtio_config_ops vmsg_config_ops = {
	.get			= vmsg_get,
	.set			= vmsg_set,
	.generation		= vmsg_generation,
	.get_status		= vmsg_get_status,
	.set_status		= vmsg_set_status,
	.reset			= vmsg_reset,
	.find_vqs		= vmsg_find_vqs_op,
	.del_vqs		= vmsg_del_vqs,
	.synchronize_cbs	= vmsg_synchronize_cbs,
	.get_features		= vmsg_get_features,
	.finalize_features	= vmsg_finalize_features,
	.bus_name		= vmsg_bus_name,
	.set_vq_affinity	= vmsg_set_vq_affinity,
	.disable_vq_and_reset	= vmsg_disable_vq_and_reset,
	.enable_vq_after_reset	= vmsg_enable_vq_after_reset,
};

static void vmsg_vdev_release(struct device *dev)
{
	kfree(to_vmsg_vdev(dev_to_virtio(dev)));
}

/*
 * The only virtio device type that a xenbus device may carry (section 1). The
 * guest's configuration grants a disk or a network card; other types would give
 * the back end other drivers, such as one that hands over memory.
 */
static u32 expected_type(struct vmsg_dev *d)
{
	return strcmp(d->xdev->devicetype, "virtio_disk") ? VIRTIO_ID_NET : VIRTIO_ID_BLOCK;
}

static int get_device_info(struct vmsg_dev *d, struct vmsg_device_info *info)
{
	int err = vmsg_request(d, VMSG_GET_DEVICE_INFO, NULL, 0, info, sizeof(*info));

	if (err)
		return err;
	if (le32_to_cpu(info->device_id) != expected_type(d)) {
		dev_err(&d->xdev->dev, "virtio device of the unexpected type %u\n",
			le32_to_cpu(info->device_id));
		return -EINVAL;
	}
	if (le32_to_cpu(info->config_size) > MAX_CONFIG_SIZE)
		return -EINVAL;
	return 0;
}

/* Makes the device that the back end describes. It is not registered yet. */
struct virtio_device *vmsg_vdev_create(struct vmsg_dev *d)
{
	struct vmsg_device_info info;
	struct vmsg_vdev *v;
	u32 config_size;
	int err;

	err = get_device_info(d, &info);
	if (err)
		return ERR_PTR(err);

	config_size = le32_to_cpu(info.config_size);
	v = kzalloc(struct_size(v, config, config_size), GFP_KERNEL);
	if (!v)
		return ERR_PTR(-ENOMEM);

	v->d = d;
	v->max_vqs = le32_to_cpu(info.max_virtqueues);
	v->config_size = config_size;
	v->vdev.id.device = le32_to_cpu(info.device_id);
	v->vdev.id.vendor = le32_to_cpu(info.vendor_id);
	v->vdev.config = &vmsg_config_ops;
	v->vdev.dev.parent = &d->xdev->dev;
	v->vdev.dev.release = vmsg_vdev_release;
	return &v->vdev;
}

/* After a suspend: is it still the same device? */
int vmsg_vdev_check(struct vmsg_dev *d, struct virtio_device *vdev)
{
	struct vmsg_vdev *v = to_vmsg_vdev(vdev);
	struct vmsg_device_info info;
	int err;

	err = get_device_info(d, &info);
	if (err)
		return err;
	if (le32_to_cpu(info.config_size) < v->config_size)
		return -ENODEV;
	v->max_vqs = le32_to_cpu(info.max_virtqueues);
	return 0;
}
