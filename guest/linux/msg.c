// SPDX-License-Identifier: GPL-2.0-only
/*
 * The message page and its event channel (section 2).
 *
 * The front end is the only one who asks. It has one request outstanding at a
 * time, so an answer that does not fit it is a broken rule. The interrupt
 * handler takes messages off the device ring: answers wake the one who waits,
 * EVENT_CONFIG goes to the virtio device.
 */
#include <linux/interrupt.h>
#include <linux/string.h>
#include <xen/events.h>

#include "virtio_msg_xen.h"

#define ANSWER_TIMEOUT		(30 * HZ)
/* A reset waits for what was sent to the storage (section 5). */
#define RESET_TIMEOUT		(120 * HZ)

bool vmsg_channel_is_open(struct vmsg_dev *d)
{
	return READ_ONCE(d->channel.open);
}

/* With the lock held. True if the channel was open. */
static bool close_locked(struct vmsg_channel *ch)
{
	bool was_open = ch->open;

	WRITE_ONCE(ch->open, false);
	if (ch->waiting) {
		ch->waiting = false;
		complete(&ch->done);
	}
	return was_open;
}

/*
 * Ends all requests, now and later. The channel cannot fail any more, and if it
 * has failed before, the work for that is queued.
 */
void vmsg_channel_close(struct vmsg_dev *d)
{
	struct vmsg_channel *ch = &d->channel;
	unsigned long flags;

	spin_lock_irqsave(&ch->lock, flags);
	close_locked(ch);
	spin_unlock_irqrestore(&ch->lock, flags);
}

/*
 * The back end broke a rule, or is gone: ask it for nothing more, and take the
 * consequences. From any context.
 */
void vmsg_channel_fail(struct vmsg_dev *d, const char *why)
{
	struct vmsg_channel *ch = &d->channel;
	unsigned long flags;
	bool failed;

	spin_lock_irqsave(&ch->lock, flags);
	failed = close_locked(ch);
	/* Not after the lock: whoever closes the channel then cancels the work that this queues. */
	if (failed)
		vmsg_channel_failed(d);
	spin_unlock_irqrestore(&ch->lock, flags);

	if (failed)
		dev_err(&d->xdev->dev, "%s; the device is given up\n", why);
}

/* Names the virtio device that is told of configuration changes, NULL for none. */
void vmsg_channel_listen(struct vmsg_dev *d, struct virtio_device *vdev)
{
	struct vmsg_channel *ch = &d->channel;
	bool unheard;

	spin_lock_irq(&ch->lock);
	ch->listener = vdev;
	unheard = ch->unheard;
	ch->unheard = false;
	spin_unlock_irq(&ch->lock);

	if (!vdev) {
		if (ch->page)
			synchronize_irq(ch->irq);
	} else if (unheard) {
		virtio_config_changed(vdev);
	}
}

static void take_event(struct vmsg_channel *ch, const union vmsg_message *msg, size_t size)
{
	const struct vmsg_event_config *event = (const void *)msg->payload;
	struct virtio_device *vdev;

	/* Section 2.1: the only event there is. Others are for later revisions. */
	if (msg->header.msg_id != VMSG_EVENT_CONFIG ||
	    size < sizeof(msg->header) + sizeof(*event))
		return;

	spin_lock(&ch->lock);
	vdev = ch->listener;
	if (!vdev)
		ch->unheard = true;
	spin_unlock(&ch->lock);

	if (vdev)
		vmsg_vdev_config_event(vdev, le32_to_cpu(event->device_status));
}

/* False: nobody asked for it. */
static bool take_answer(struct vmsg_channel *ch, const union vmsg_message *msg)
{
	const struct vmsg_header *asked = &ch->answer.header;
	bool fits;

	spin_lock(&ch->lock);
	fits = ch->waiting && msg->header.msg_id == asked->msg_id &&
	       msg->header.token == asked->token && msg->header.dev_num == asked->dev_num;
	if (fits) {
		ch->answer = *msg;
		ch->answered = true;
		ch->waiting = false;
		complete(&ch->done);
	}
	spin_unlock(&ch->lock);
	return fits;
}

static irqreturn_t message_interrupt(int irq, void *data)
{
	struct vmsg_dev *d = data;
	struct vmsg_channel *ch = &d->channel;
	struct vmsg_page *page = ch->page;
	/* An answer that was waited for makes it wanted. Events may come without end. */
	unsigned int eoi_flags = XEN_EOI_FLAG_SPURIOUS;
	union vmsg_message msg;
	u32 before = ch->driver_cons;
	u32 prod, size;

	if (!vmsg_channel_is_open(d))
		goto out;

	/* Before the slots are read; pairs with the back end's release of the index. */
	prod = le32_to_cpu(virt_load_acquire(&page->device_prod));
	if (prod - before > VMSG_SLOTS) {
		vmsg_channel_fail(d, "the back end overran its message ring");
		goto out;
	}
	if (prod == before)
		goto out;

	while (ch->driver_cons != prod) {
		/* The back end can change the slot at any time: use the copy. */
		memcpy(&msg, &page->device_ring[ch->driver_cons % VMSG_SLOTS], sizeof(msg));
		barrier();
		ch->driver_cons++;

		size = le16_to_cpu(msg.header.msg_size);
		if (size < VMSG_MIN_SIZE || size > VMSG_MAX_SIZE) {
			vmsg_channel_fail(d, "message of a bad size");
			goto out;
		}
		if (!(msg.header.type & VMSG_TYPE_RESPONSE)) {
			if (!(msg.header.type & VMSG_TYPE_BUS))
				take_event(ch, &msg, size);
		} else if (take_answer(ch, &msg)) {
			eoi_flags = 0;
		} else {
			vmsg_channel_fail(d, "answer to a request that was not sent");
			goto out;
		}
	}
	/* After the slots were read: the back end may write them again. */
	virt_store_release(&page->driver_cons, cpu_to_le32(ch->driver_cons));
	/* It may have filled the ring meanwhile, by the index of before, and wait for room. */
	virt_mb();
	prod = le32_to_cpu(READ_ONCE(page->device_prod));
	if (prod - before >= VMSG_SLOTS)
		notify_remote_via_evtchn(ch->port);
out:
	xen_irq_lateeoi(irq, eoi_flags);
	return IRQ_HANDLED;
}

static unsigned long answer_timeout(u8 id, const void *request)
{
	const __le32 *status = request;

	if (id == VMSG_RESET_VQUEUE || (id == VMSG_SET_DEVICE_STATUS && !*status))
		return RESET_TIMEOUT;
	return ANSWER_TIMEOUT;
}

/*
 * Sends a request and waits for the answer, of which the first @response_len
 * bytes of payload are copied to @response. May sleep.
 *
 * -ENODEV: the back end is gone, or was given up before.
 * -ETIMEDOUT: it did not answer, and is given up.
 * -EIO: the answer is too short, which is how a request is refused.
 */
int vmsg_request(struct vmsg_dev *d, u8 id, const void *request, size_t request_len,
		 void *response, size_t response_len)
{
	struct vmsg_channel *ch = &d->channel;
	union vmsg_message *asked = &ch->answer;
	bool answered;
	int err = 0;

	if (WARN_ON_ONCE(request_len > VMSG_MAX_PAYLOAD || response_len > VMSG_MAX_PAYLOAD))
		return -EINVAL;

	mutex_lock(&ch->mutex);

	spin_lock_irq(&ch->lock);
	if (!ch->open) {
		spin_unlock_irq(&ch->lock);
		err = -ENODEV;
		goto out;
	}
	memset(asked, 0, sizeof(*asked));
	asked->header.msg_id = id;
	asked->header.token = cpu_to_le16(++ch->token);
	asked->header.msg_size = cpu_to_le16(sizeof(asked->header) + request_len);
	memcpy(asked->payload, request, request_len);
	reinit_completion(&ch->done);
	ch->answered = false;
	ch->waiting = true;
	/* There is room: all requests before this one were answered. */
	memcpy(&ch->page->driver_ring[ch->driver_prod % VMSG_SLOTS], asked, sizeof(*asked));
	ch->driver_prod++;
	spin_unlock_irq(&ch->lock);

	/* After the slot was written; pairs with the back end's acquiring load. */
	virt_store_release(&ch->page->driver_prod, cpu_to_le32(ch->driver_prod));
	notify_remote_via_evtchn(ch->port);

	wait_for_completion_timeout(&ch->done, answer_timeout(id, request));

	spin_lock_irq(&ch->lock);
	answered = ch->answered;
	ch->waiting = false;
	err = ch->open ? -ETIMEDOUT : -ENODEV;
	spin_unlock_irq(&ch->lock);

	if (!answered) {
		if (err == -ETIMEDOUT)
			vmsg_channel_fail(d, "the back end does not answer");
		goto out;
	}
	if (le16_to_cpu(ch->answer.header.msg_size) < sizeof(ch->answer.header) + response_len) {
		err = -EIO;
		goto out;
	}
	memcpy(response, ch->answer.payload, response_len);
	err = 0;
out:
	mutex_unlock(&ch->mutex);
	return err;
}

void vmsg_channel_init(struct vmsg_dev *d)
{
	struct vmsg_channel *ch = &d->channel;

	mutex_init(&ch->mutex);
	spin_lock_init(&ch->lock);
	init_completion(&ch->done);
}

/* Makes the page and the port that section 1.1 announces. */
int vmsg_channel_setup(struct vmsg_dev *d)
{
	struct vmsg_channel *ch = &d->channel;
	void *page;
	int err;

	err = xenbus_setup_ring(d->xdev, GFP_KERNEL, &page, 1, &ch->gref);
	if (err)
		return err;
	ch->page = page;
	ch->driver_prod = 0;
	ch->driver_cons = 0;

	err = xenbus_alloc_evtchn(d->xdev, &ch->port);
	if (err)
		goto free_page;

	err = bind_evtchn_to_irqhandler_lateeoi(ch->port, message_interrupt, 0,
						dev_name(&d->xdev->dev), d);
	if (err < 0)
		goto free_port;
	ch->irq = err;
	return 0;

free_port:
	xenbus_free_evtchn(d->xdev, ch->port);
free_page:
	xenbus_teardown_ring(&page, 1, &ch->gref);
	ch->page = NULL;
	return err;
}

/* The back end is Connected: it may be asked. */
void vmsg_channel_open(struct vmsg_dev *d)
{
	spin_lock_irq(&d->channel.lock);
	d->channel.open = true;
	d->channel.unheard = false;
	spin_unlock_irq(&d->channel.lock);
}

void vmsg_channel_destroy(struct vmsg_dev *d)
{
	struct vmsg_channel *ch = &d->channel;
	void *page = ch->page;

	vmsg_channel_close(d);
	if (!page)
		return;

	/* Closes the port, too. */
	unbind_from_irqhandler(ch->irq, d);
	xenbus_teardown_ring(&page, 1, &ch->gref);
	ch->page = NULL;
}
